"""What Google Cloud Storage and the way to it say, as errors of `agent.errors`.

Each names what was done, the key, the bucket, the server's reason and request id. Nothing of a
request is repeated but that: a request holds a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from agent.errors import (
    ConfigError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    Permanent,
    PermissionDenied,
    StorageUnavailable,
    Throttled,
    TidelogError,
)
from agent.storage.answers import Unsupported, pause_asked_s, unreached, with_right
from agent.storage.ranges import RangeNotSatisfiable

VENDOR_ERRORS: Final = (aiohttp.ClientError, TimeoutError, OSError)


_THROTTLED: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "slowDown"})
_LOCKED: Final = frozenset({"retentionPolicyNotMet", "objectUnderActiveHold"})
_HINTS: Final[Mapping[int, str]] = {
    401: "the token is of no known account; docs/storage/gcs.md says where one is looked for",
    403: "give the account the role Storage Object User on the bucket; look for a deny policy, a "
    "retention policy and VPC service controls, too; docs/storage/gcs.md",
    412: "another writer was first; objects are never overwritten",
}


def translated(error: BaseException, what: str) -> TidelogError:
    """The error to raise `from` one of the HTTP client."""
    if isinstance(error, TidelogError):
        return error
    return unreached(error, what)


def judged(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    what: str,
    right: str = "",
    *,
    is_of_bucket: bool = False,
) -> TidelogError:
    """The error for an answer; the names of the headers are in lower case, `right` is the
    permission that was needed, and `is_of_bucket` whether no object was asked for: then it is the
    bucket that is not found, which not every server says."""
    reason, text = _told(body)
    request_id = headers.get("x-guploader-uploadid")
    named = reason or f"status {status}"
    message = f"{what}: {named}" + (f": {text}" if text and text != reason else "")
    message += f" (request {request_id})" if request_id else ""
    if status in (429, 503) or reason in _THROTTLED:
        return Throttled(message, retry_after_s=pause_asked_s(headers.get("retry-after")))
    if status == 408 or (status >= 500 and status != 501):
        return StorageUnavailable(message)
    if status == 400 and "match" in text and ("crc32c" in text.lower() or "md5" in text.lower()):
        return StorageUnavailable(message)  # what arrived is not what was sent: it is sent again
    if status == 404 and (is_of_bucket or "bucket" in text.lower()):
        return ConfigError(message, hint="create the bucket first; it is never created here")
    hint = with_right(_HINTS[403], right) if status == 403 else _HINTS.get(status)
    if reason in _LOCKED:
        return ObjectLocked(message)
    return _kind(status)(message, hint=hint)


def _kind(status: int) -> type[TidelogError]:
    if status == 404:
        return ObjectNotFound
    if status == 410:
        return ObjectNotFound
    if status in (401, 403):
        return PermissionDenied
    if status in (405, 501):
        return Unsupported
    if status == 412:
        return ObjectExists
    if status == 416:
        return RangeNotSatisfiable
    return Permanent


def _told(body: bytes) -> tuple[str, str]:
    """Reason and sentence of an error's document, as far as it is one."""
    try:
        found: Any = json.loads(body)
    except ValueError:
        text = body[:200].decode(errors="replace").strip()
        return "", text.splitlines()[0].rstrip(".") if text else ""
    if not isinstance(found, dict):
        return "", ""
    error = found.get("error", {})
    if not isinstance(error, dict):  # of a token endpoint
        return str(error), str(found.get("error_description", "")).rstrip(".")
    details = error.get("errors") or [{}]
    return str(details[0].get("reason", "")), str(error.get("message", "")).rstrip(".")
