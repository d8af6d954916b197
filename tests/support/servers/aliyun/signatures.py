"""Signatures as the services compute them: version 4 of OSS, and that of RPC services.

Sources: "Include a V4 signature in the Authorization header" of the OSS reference, "RPC API
signature" of the vendor's developer reference. Both are computed here from the raw request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote

SKEW_S = 900.0
_V4 = re.compile(
    r"OSS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/oss/"
    r"aliyun_v4_request(?:,\s*AdditionalHeaders=(?P<more>[^,]+))?,\s*Signature=(?P<signature>\w+)"
)


def parse_v4(authorization: str) -> re.Match[str] | None:
    """Groups key, date, region, more, signature."""
    return _V4.fullmatch(authorization)


def v4_signature(
    secret: str,
    claimed: re.Match[str],
    method: str,
    resource: str,
    raw_query: str,
    headers: Mapping[str, str],
) -> str:
    """What the signature of a request must be. `resource` is `/bucket/key`, decoded; header names
    are in lower case."""
    pairs = []
    for piece in filter(None, raw_query.split("&")):
        name, _, value = piece.partition("=")
        pairs.append((_encoded(unquote(name)), _encoded(unquote(value))))
    query = "&".join(f"{name}={value}" if value else name for name, value in sorted(pairs))
    more = sorted(filter(None, (claimed["more"] or "").lower().split(";")))
    names = {
        name
        for name in headers
        if name.startswith("x-oss-") or name in ("content-type", "content-md5") or name in more
    }
    canonical = "\n".join(
        [
            method,
            _encoded(resource, keep="/"),
            query,
            "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(names)),
            ";".join(more),
            headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        ]
    )
    scope = f"{claimed['date']}/{claimed['region']}/oss/aliyun_v4_request"
    text = "\n".join(
        [
            "OSS4-HMAC-SHA256",
            headers["x-oss-date"],
            scope,
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"aliyun_v4{secret}".encode()
    for step in (claimed["date"], claimed["region"], "oss", "aliyun_v4_request"):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def rpc_signature(secret: str, method: str, form: Mapping[str, str]) -> str:
    """What `Signature` must be for all other parameters of a call."""
    signed = {name: value for name, value in form.items() if name != "Signature"}
    pairs = sorted((_encoded(name), _encoded(value)) for name, value in signed.items())
    canonical = "&".join("=".join(pair) for pair in pairs)
    text = "&".join([method, _encoded("/"), _encoded(canonical)])
    digest = hmac.new(f"{secret}&".encode(), text.encode(), "sha1").digest()
    return base64.b64encode(digest).decode()


def is_now(text: str, form: str) -> bool:
    """Whether a time is within the skew that services allow."""
    try:
        told = datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs((datetime.now(UTC) - told).total_seconds()) <= SKEW_S


def _encoded(text: str, keep: str = "") -> str:
    return quote(text, safe=f"-_.~{keep}")
