"""Taking secrets out of what is handed to others, whatever put them in. Pure.

Settings are masked by their types already; this is for what nobody thought of: a password in an
error of a driver, a signed address in a log line, a key in a field that an older version wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "***"
_SECRET_NAME: Final = re.compile(
    r"passw|secret|token|credential|private.?key|access.?key|account.?key|customer.?key|passphrase"
    r"|signature|connection.?string|wrapped|sealed|hmac|authorization",
    re.IGNORECASE,
)
_LOGIN: Final = re.compile(r"(?<=://)[^/\s@\"']+(?=@)")
_PARAMETER: Final = re.compile(
    r"(?i)\b((?:[\w-]*(?:password|secret|token|signature|accountkey|accesskey\w*|credential))|sig)"
    r"(\s*[=:]\s*)([^\s&;,\"'}]+)"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}")
_LONG_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|$)", re.S
)
_SHORTEST: Final = 4


def scrubbed(value: Any, known: Iterable[str] = ()) -> Any:
    """The same plain value without secrets: fields with telling names, logins in addresses, signed
    parameters, keys, and every text of `known`."""
    texts = sorted({text for text in known if len(text) >= _SHORTEST}, key=len, reverse=True)
    return _value(value, texts)


def _value(value: Any, known: list[str]) -> Any:
    if isinstance(value, str):
        return _text(value, known)
    if isinstance(value, Mapping):
        return {
            _text(str(name), known): _field(str(name), one, known) for name, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_value(one, known) for one in value]
    if isinstance(value, bytes):
        return HIDDEN
    return value


def _field(name: str, value: Any, known: list[str]) -> Any:
    if value and _SECRET_NAME.search(name) and not isinstance(value, bool | int | float):
        return HIDDEN
    return _value(value, known)


def _text(text: str, known: list[str]) -> str:
    for one in known:
        text = text.replace(one, HIDDEN)
    text = _LONG_KEY.sub(HIDDEN, text)
    text = _LOGIN.sub(HIDDEN, text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    return _PARAMETER.sub(rf"\1\2{HIDDEN}", text)
