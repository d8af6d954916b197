"""What Azure and the way to it say, as errors of `agent.errors`, in sentences for people.

Each names what was done, the key, the container, the server's code and request id. Nothing of a
request is repeated but that: the address of a request may hold a SAS token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from azure.core import exceptions as vendor

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
from agent.storage.answers import first_line, pause_asked_s, unreached, with_right
from agent.storage.ranges import RangeNotSatisfiable

VENDOR_ERRORS: Final = (vendor.AzureError, aiohttp.ClientError, TimeoutError, OSError)


class BlocksGone(Permanent):
    """Blocks of an upload are not there any more: committed, or thrown away by another writer."""


_THROTTLED: Final = frozenset({"ServerBusy", "TooManyRequests", "AccountBandwidthLimitExceeded"})
_TRANSIENT: Final = frozenset(
    {"Md5Mismatch", "Crc64Mismatch", "InternalError", "OperationTimedOut", "RequestTimeout"}
)
"""The first two: what arrived is not what was sent, so it is sent again."""
_EXISTS: Final = frozenset({"BlobAlreadyExists", "ConditionNotMet", "UnauthorizedBlobOverwrite"})
_CONFIG: Final = frozenset(
    {"ContainerNotFound", "ContainerBeingDeleted", "ResourceTypeMismatch", "InvalidBlobTier"}
    | {"AccountIsDisabled", "InvalidBlobType"}
)
_IMMUTABLE: Final = frozenset({"BlobImmutableDueToPolicy", "LeaseIdMissing"})
_HINTS: Final[Mapping[str, str]] = {
    "AuthorizationPermissionMismatch": "give the identity the role Storage Blob Data Contributor "
    "on the container, or the SAS token the permissions rcwdl; docs/storage/azure.md",
    "AuthorizationFailure": "the firewall of the storage account, or its setting for shared keys "
    "or public networks, refuses this agent, or the key or SAS token is not of this account",
    "AuthenticationFailed": "the key or SAS token is not of this account, has expired, or the "
    "clock of this host is wrong",
    "KeyBasedAuthenticationNotPermitted": "the account allows no keys: use inheritFromAzureAD",
    "NoAuthenticationInformation": "give credentials, or an identity to this host",
    "ContainerNotFound": "create the container first; it is never created here",
    "InvalidBlobTier": "this account does not offer the accessTier of the settings",
}


def translated(error: BaseException, what: str, right: str = "") -> TidelogError:
    """The error to raise `from` a vendor's one. `what` is `cannot write 'key' in azure://…`,
    `right` the permission that it takes."""
    if isinstance(error, TidelogError):
        return error
    if isinstance(error, vendor.ClientAuthenticationError) and not _is_of_storage(error):
        return PermissionDenied(
            f"{what}: no token: {first_line(error)}",
            hint="docs/storage/azure.md says where an identity is looked for; a pod whose service "
            "account was annotated must be restarted to see it",
        )
    if isinstance(error, vendor.HttpResponseError) and error.response is not None:
        return _answered(error, what, right)
    if isinstance(error, vendor.ServiceResponseTimeoutError):
        return StorageUnavailable(f"{what}: no answer in time")
    return unreached(error, what)


def _is_of_storage(error: Any) -> bool:
    """Else it was the token service that refused."""
    headers = {} if error.response is None else error.response.headers
    return bool(getattr(error, "error_code", None)) or "x-ms-error-code" in headers


def _answered(error: Any, what: str, right: str) -> TidelogError:
    headers = {name.lower(): value for name, value in error.response.headers.items()}
    status = int(error.status_code or 0)
    found = getattr(error, "error_code", None) or headers.get("x-ms-error-code") or ""
    code = str(getattr(found, "value", found))  # the SDK's names of codes are not the server's
    return judged(status, code, what, headers, right)


def judged(
    status: int, code: str, what: str, headers: Mapping[str, str], right: str = ""
) -> TidelogError:
    """The error for an answer; the names of the headers are in lower case."""
    request_id = headers.get("x-ms-request-id")
    told = f"{code} (status {status})" if code else f"status {status}"
    message = f"{what}: {told}" + (f" (request {request_id})" if request_id else "")
    hint = _HINTS.get(code)
    if code == "AuthorizationPermissionMismatch":
        hint = with_right(hint, right)
    if code in _THROTTLED or status in (429, 503):
        return Throttled(message, retry_after_s=pause_asked_s(headers.get("retry-after")))
    if code in _TRANSIENT or (status >= 500 and status not in (501, 507)):
        return StorageUnavailable(message)
    return _kind(code, status)(message, hint=hint)


def _kind(code: str, status: int) -> type[TidelogError]:
    if code in _CONFIG:
        return ConfigError
    if code in _IMMUTABLE:
        return ObjectLocked
    if status in (401, 403):
        return ObjectExists if code in _EXISTS else PermissionDenied
    if code in _EXISTS or status == 412:
        return ObjectExists
    if code in ("InvalidBlockList", "InvalidBlockId", "InvalidBlobOrBlock"):
        return BlocksGone
    if status == 416:
        return RangeNotSatisfiable
    if status == 507:
        return StorageFull
    if status == 404:
        return ObjectNotFound
    return Permanent
