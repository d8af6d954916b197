"""What S3, STS and the way to them say, as errors of `agent.errors`, in sentences for people.

Each names what was done, the key, the store, the server's code and request id. Nothing of a request
is repeated but that: a request holds credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from botocore import exceptions as vendor

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
    Unsupported,
    first_line,
    pause_asked_s,
    unreached,
    with_right,
)
from agent.storage.ranges import RangeNotSatisfiable

VENDOR_ERRORS: Final = (
    vendor.ClientError,
    vendor.BotoCoreError,
    aiohttp.ClientError,
    TimeoutError,
    asyncio.TimeoutError,
    OSError,
)


_THROTTLED: Final = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"}
    | {"ServiceUnavailable", "BandwidthLimitExceeded", "RequestThrottled", "SlowDownWrite"}
)
_TRANSIENT: Final = frozenset(
    {"RequestTimeout", "RequestTimeoutException", "InternalError", "OperationAborted"}
    | {"ConditionalRequestConflict", "IncompleteBody", "IDPCommunicationError"}
    | {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"}
)
"""The last line: what arrived is not what was sent, so it is sent again."""
_EXPIRED: Final = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
)
_FULL: Final = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"})
_UNSUPPORTED: Final = frozenset({"NotImplemented", "MethodNotAllowed", "UnsupportedArgument"})
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_LOCKED: Final = frozenset({"ObjectLocked", "InvalidRetentionDate", "XMinioObjectLocked"})
_DENIED: Final = frozenset({"AccessDenied", "AllAccessDisabled", "403", ""})
"""The last two: an answer to HEAD, which has no body."""
_HINTS: Final[Mapping[str, str]] = {
    "AccessDenied": "docs/storage/s3.md lists the permissions that are needed; look for a Deny in "
    "the policies of bucket, role and key",
    "InvalidAccessKeyId": "the server does not know this access key: is it the key of this "
    "endpoint, and does a session token belong to it?",
    "SignatureDoesNotMatch": "the secret access key is not the one that belongs to this access key",
    "RequestTimeTooSkewed": "the clock of this host is wrong; run a time service on it",
    "NoSuchBucket": "create the bucket first; it is never created here",
    "KMS.NotFoundException": "serverSideEncryption.kmsKeyID names no key of this region",
    "KMS.DisabledException": "enable the key in KMS",
}


def translated(error: BaseException, what: str, right: str = "") -> TidelogError:
    """The error to raise `from` a vendor's one. `what` is `cannot write 'key' to s3://bucket`,
    `right` the permission that it takes."""
    if isinstance(error, TidelogError):
        return error
    if isinstance(error, vendor.ClientError):
        return _answered(error, what, right)
    if isinstance(error, (vendor.NoCredentialsError, vendor.PartialCredentialsError)):
        return PermissionDenied(
            f"{what}: no credentials were found",
            hint="set credentials in the settings, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "a role; a pod that was annotated with a role must be restarted to see it",
        )
    if isinstance(error, vendor.ParamValidationError | vendor.ConfigNotFound | ValueError):
        return ConfigError(f"{what}: {first_line(error)}")
    return unreached(error, what)


def _answered(error: vendor.ClientError, what: str, right: str) -> TidelogError:
    answer: Mapping[str, Any] = error.response
    details = answer.get("Error", {})
    meta = answer.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    text = _told(code, status, str(details.get("Message", "")), str(meta.get("RequestId", "")))
    message, hint = f"{what}: {text}", _HINTS.get(code)
    if code in _THROTTLED or status in (429, 503):
        headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
        return Throttled(message, retry_after_s=pause_asked_s(headers.get("retry-after")))
    if code in _EXPIRED:
        return CredentialsExpired(message)
    if code in _TRANSIENT or (status >= 500 and status not in (501, 507)):
        return StorageUnavailable(message)
    if status == 403 and code in _DENIED:
        hint = with_right(_HINTS["AccessDenied"], right)
    return _kind(code, status)(message, hint=hint)


def _kind(code: str, status: int) -> type[TidelogError]:
    if code == "NoSuchBucket" or code in _ELSEWHERE or status == 301:
        return ConfigError
    if code == "NoSuchUpload":
        return NoSuchUpload
    if code == "InvalidRange" or status == 416:
        return RangeNotSatisfiable
    if code in _FULL or status == 507:
        return StorageFull
    if code in _UNSUPPORTED or status in (405, 501):
        return Unsupported
    if code in _LOCKED:
        return ObjectLocked
    if status in (401, 403):
        return PermissionDenied
    if status == 404:
        return ObjectNotFound
    if status == 412 or code == "ExistingObjectIsDirectory":
        return ObjectExists
    return Permanent


def _told(code: str, status: int, message: str, request_id: str) -> str:
    named = code if code and not code.isdigit() else f"status {status}"
    told = f"{named}: {message.rstrip('.')}" if message and message != code else named
    return f"{told} (request {request_id})" if request_id else told
