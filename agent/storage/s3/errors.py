"""What S3, STS and the way to them say, as errors of `agent.errors`, in sentences for people.

Each names what was done, the key, the store, the server's code and request id. Nothing of a request
is repeated but that: a request holds credentials.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from botocore import exceptions as vendor

from agent.errors import (
    ConfigError,
    ObjectExists,
    ObjectNotFound,
    Permanent,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    Throttled,
    TidelogError,
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


class NoSuchUpload(Permanent):
    """The upload in parts is gone: completed, or aborted."""


class Unsupported(Permanent):
    """The server does not know what was asked for."""


class CredentialsExpired(StorageUnavailable):
    """The credentials are not good any more; the next attempt has new ones."""


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


def translated(error: BaseException, what: str) -> TidelogError:
    """The error to raise `from` a vendor's one. `what` is `cannot write 'key' to s3://bucket`."""
    if isinstance(error, TidelogError):
        return error
    if isinstance(error, vendor.ClientError):
        return _answered(error, what)
    if isinstance(error, (vendor.NoCredentialsError, vendor.PartialCredentialsError)):
        return PermissionDenied(
            f"{what}: no credentials were found",
            hint="set credentials in the settings, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "a role; a pod that was annotated with a role must be restarted to see it",
        )
    if isinstance(error, vendor.ParamValidationError | vendor.ConfigNotFound | ValueError):
        return ConfigError(f"{what}: {_first_line(error)}")
    certificate = _certificate_error(error)
    if certificate is not None:
        return ConfigError(
            f"{what}: the certificate of the server is not trusted: {certificate}",
            hint="give the certificate of its authority as endpointCA",
        )
    return StorageUnavailable(f"{what}: {_reason(error)}")


def _answered(error: vendor.ClientError, what: str) -> TidelogError:
    answer: Mapping[str, Any] = error.response
    details = answer.get("Error", {})
    meta = answer.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    text = _told(code, status, str(details.get("Message", "")), str(meta.get("RequestId", "")))
    message, hint = f"{what}: {text}", _HINTS.get(code)
    if code in _THROTTLED or status in (429, 503):
        headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
        return Throttled(message, retry_after_s=_seconds(headers.get("retry-after")))
    if code in _EXPIRED:
        return CredentialsExpired(message)
    if code in _TRANSIENT or (status >= 500 and status not in (501, 507)):
        return StorageUnavailable(message)
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


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 1.0), 0.1), 60.0)
    except ValueError:
        return 1.0


def _certificate_error(error: BaseException | None) -> str | None:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            error = error.certificate_error
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        inner = getattr(error, "kwargs", {}).get("error") if hasattr(error, "kwargs") else None
        error = inner or error.__cause__ or error.__context__
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
