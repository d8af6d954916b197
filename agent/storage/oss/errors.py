"""What OSS and the way to it say, as errors of `agent.errors`, in sentences for people.

Each names what was done, the key, the store, the server's code and request id. Nothing of a request
is repeated but that: a request holds credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from alibabacloud_oss_v2 import exceptions as vendor

from agent.errors import (
    ConfigError,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    Permanent,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    Throttled,
    TidelogError,
)
from agent.storage.answers import (
    CredentialsExpired,
    NoSuchUpload,
    first_line,
    pause_asked_s,
    unreached,
    with_right,
)
from agent.storage.ranges import RangeNotSatisfiable

VENDOR_ERRORS: Final = (vendor.BaseError, aiohttp.ClientError, TimeoutError, OSError)


_THROTTLED: Final = frozenset(
    {"ServiceUnavailable", "SlowDown", "Throttling", "QpsLimitExceeded", "TooManyRequests"}
    | {"DownloadTrafficRateLimitExceeded", "UploadTrafficRateLimitExceeded"}
    | {"TotalQpsLimitExceeded", "DownloadQpsLimitExceeded", "UploadQpsLimitExceeded"}
)
_TRANSIENT: Final = frozenset(
    {"RequestTimeout", "InternalError", "InvalidDigest", "IncompleteBody"}
)
"""A digest is invalid where what arrived is not what was sent, so it is sent again."""
_EXPIRED: Final = frozenset({"SecurityTokenExpired", "InvalidSecurityToken.Expired"})
_FULL: Final = frozenset({"QuotaExceeded", "UserCapacityExceeded", "InsufficientCapacity"})
_CONFIG: Final = frozenset({"NoSuchBucket", "InvalidBucketName", "AuthorizationRegionMismatch"})
_HINTS: Final[Mapping[str, str]] = {
    "AccessDenied": "docs/storage/oss.md lists the actions that are needed; look for a Deny in the "
    "policies of user, role and bucket, and whether the endpoint is the one of the bucket's region",
    "InvalidAccessKeyId": "the server does not know this access key: is it one of this account, "
    "and does a security token belong to it?",
    "SignatureDoesNotMatch": "the access key secret is not the one of this access key, or "
    "storage.oss.region is not the region of this endpoint",
    "InvalidSecurityToken": "the security token does not belong to this access key",
    "RequestTimeTooSkewed": "the clock of this host is wrong; run a time service on it",
    "NoSuchBucket": "create the bucket first; it is never created here",
    "UserDisable": "the account is in arrears or closed",
    "KmsServiceNotEnabled": "activate KMS in this account, or use sseAlgorithm: AES256",
    "InvalidObjectState": "the object is archived; restore it before it can be read",
}


def translated(error: BaseException, what: str, right: str = "") -> TidelogError:
    """The error to raise `from` a vendor's one. `what` is `cannot write 'key' to oss://bucket`,
    `right` the action that must be allowed."""
    found = _innermost(error)
    if isinstance(found, TidelogError):
        return found
    if isinstance(found, vendor.ServiceError):
        return _answered(found, what, right)
    if isinstance(found, vendor.BaseError):
        return ConfigError(f"{what}: {first_line(found)}")
    return unreached(found, what)


def _innermost(error: BaseException) -> BaseException:
    """What the library wraps: up to three layers around what happened."""
    while isinstance(error, vendor.BaseError):
        inner = error.kwargs.get("error")
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _answered(error: Any, what: str, right: str) -> TidelogError:
    code, status = str(error.code or ""), int(error.status_code or 0)
    if code == "BadErrorResponse":  # an answer without a body that says more
        code = ""
    message, hint = f"{what}: {_told(code, status, error)}", _HINTS.get(code)
    if code in _THROTTLED or status in (429, 503):
        return Throttled(
            message, retry_after_s=pause_asked_s((error.headers or {}).get("Retry-After"))
        )
    if code in _EXPIRED:
        return CredentialsExpired(message)
    if code in _TRANSIENT or (status >= 500 and status not in (501, 507)):
        return StorageUnavailable(message)
    if status == 403 and code in ("AccessDenied", ""):  # an answer to HEAD has no code
        hint = with_right(_HINTS["AccessDenied"], right)
    return _kind(code, status)(message, hint=hint)


def _kind(code: str, status: int) -> type[TidelogError]:
    if code in _CONFIG or status == 301:
        return ConfigError
    if code == "NoSuchUpload":
        return NoSuchUpload
    if code == "InvalidRange" or status == 416:
        return RangeNotSatisfiable
    if code in _FULL or status == 507:
        return StorageFull
    if code == "FileAlreadyExists":
        return ObjectExists
    if code == "FileImmutable":
        return ObjectLocked
    if status in (401, 403):
        return PermissionDenied
    if status == 404:
        return ObjectNotFound
    return Permanent


def _told(code: str, status: int, error: Any) -> str:
    named = code or f"status {status}"
    message = str(error.message or "").strip() if code else ""
    told = f"{named}: {message.splitlines()[0].rstrip('.')}" if message else named
    return f"{told} (request {error.request_id})" if error.request_id else told
