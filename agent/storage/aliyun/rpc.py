"""Calls to Alibaba Cloud's RPC services, STS and KMS: parameters in, JSON out, signed.

A call is a form whose parameters, sorted, are signed with HMAC-SHA1 over
`POST&%2F&<parameters>`, as the vendor describes under "RPC API signature". Each call has a nonce
and a time: a service refuses what it saw before, and what is older than a quarter of an hour. So a
call that is tried again is signed anew.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import ssl
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp

from agent.clock import signing_time
from agent.errors import (
    ConfigError,
    PermissionDenied,
    StorageUnavailable,
    Throttled,
    TidelogError,
)
from agent.storage.retrying import Attempts, RetryPolicy
from agent.storage.surroundings import Surroundings
from agent.version import VERSION

TIMEOUT_S: Final = 10.0
ATTEMPTS: Final = RetryPolicy(max_attempts=3, base_delay_s=0.3, max_backoff_s=2.0, deadline_s=40.0)
VENDOR_ERRORS: Final = (aiohttp.ClientError, TimeoutError, OSError)


class Keys(NamedTuple):
    """What a request is signed with; shows nothing of it."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(***)"


class Answered(Exception):  # no error of ours yet: the caller knows what it means to it
    """The service refused a call, for a reason that trying again does not change."""

    def __init__(self, status: int, code: str, message: str, request_id: str) -> None:
        super().__init__(f"{code}: {message.rstrip('.')} (request {request_id})")
        self.status = status
        self.code = code


_THROTTLED: Final = ("Throttling", "ServiceUnavailable", "Rejected.Throttling")
_HINTS: Final[Mapping[str, str]] = {
    "InvalidAccessKeyId.NotFound": "the service does not know this access key",
    "InvalidAccessKeyId.Inactive": "the access key is switched off; enable it in RAM",
    "SignatureDoesNotMatch": "the access key secret is not the one of this access key",
    "IncompleteSignature": "the access key secret is not the one of this access key",
    "InvalidTimeStamp.Expired": "the clock of this host is wrong; run a time service on it",
    "EntityNotExist.Role": "there is no such role; is the account in its ARN the right one?",
    "NoPermission": "the caller needs sts:AssumeRole, and the role's trust policy must name it",
    "AuthenticationFail.NoPermission": "allow the action in the caller's RAM policy",
    "InvalidSecurityToken.Expired": "the session has expired; give new credentials",
    "AuthenticationFail.OIDCToken.Expired": "the identity token has expired; restart the pod",
}


class RpcService:
    """One service at one endpoint, `https://sts.cn-hangzhou.aliyuncs.com`."""

    def __init__(
        self,
        endpoint: str,
        version: str,
        surroundings: Surroundings,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._version = version
        self._surroundings = surroundings
        self._tls = tls

    async def call(self, action: str, parameters: Mapping[str, str], keys: Keys | None) -> Any:
        """The answer to one call. Without keys it is not signed, for calls that carry a proof of
        their own. Raises `Answered`, and errors of `agent.errors` where there was no answer."""
        around = self._surroundings
        attempts = Attempts(action, self.endpoint, ATTEMPTS, around.clock, around.on_retry)

        async def once() -> Any:
            form = dict(self._common(action), **parameters)
            return await self._ask(action, form if keys is None else signed(form, keys))

        return await attempts.run(once)

    def _common(self, action: str) -> dict[str, str]:
        return {
            "Action": action,
            "Version": self._version,
            "Format": "JSON",
            "Timestamp": signing_time().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "SignatureNonce": secrets.token_hex(16),
        }

    async def _ask(self, action: str, form: Mapping[str, str]) -> Any:
        what = f"{action} at {self.endpoint}"
        limit = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": f"tidelog/{VERSION}",
        }
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, trust_env=True) as session,
                session.post(
                    self.endpoint + "/", data=urlencode(form), headers=headers, ssl=self._tls
                ) as answer,
            ):
                return _understood(what, answer.status, await answer.read())
        except VENDOR_ERRORS as error:
            raise unreachable(what, error) from error


def signed(form: Mapping[str, str], keys: Keys) -> dict[str, str]:
    """The form with who calls, and the signature."""
    full = dict(form)
    full["AccessKeyId"] = keys.access_key
    full["SignatureMethod"] = "HMAC-SHA1"
    full["SignatureVersion"] = "1.0"
    if keys.token:
        full["SecurityToken"] = keys.token
    pairs = "&".join(f"{_quoted(name)}={_quoted(full[name])}" for name in sorted(full))
    text = f"POST&{_quoted('/')}&{_quoted(pairs)}"
    digest = hmac.new(f"{keys.secret_key}&".encode(), text.encode(), hashlib.sha1).digest()
    full["Signature"] = base64.b64encode(digest).decode()
    return full


def unreachable(what: str, error: BaseException) -> TidelogError:
    """The error for no answer at all."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return ConfigError(
            f"{what}: the certificate of the server is not trusted",
            hint="give the certificate of its authority as endpointCA",
        )
    reason = "no answer in time" if isinstance(error, TimeoutError) else str(error).rstrip(".")
    return StorageUnavailable(f"{what}: {reason or type(error).__name__}")


def refused(error: Answered, what: str) -> TidelogError:
    """The error for a refusal that means nothing special to the caller."""
    hint = _HINTS.get(error.code)
    is_denial = error.status in (401, 403, 404) or error.code.startswith("AuthenticationFail")
    if is_denial or hint is not None:
        return PermissionDenied(f"{what}: {error}", hint=hint)
    return ConfigError(f"{what}: {error}", hint=hint)


def _understood(what: str, status: int, body: bytes) -> Any:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = {}
    if status == 200 and isinstance(answer, dict) and answer:
        return answer
    found = answer if isinstance(answer, dict) else {}
    code = str(found.get("Code") or f"status {status}")
    refusal = Answered(status, code, str(found.get("Message", "")), str(found.get("RequestId", "")))
    if code.startswith(_THROTTLED) or status == 429:
        raise Throttled(f"{what}: {refusal}")
    if status >= 500 or status == 200:
        raise StorageUnavailable(f"{what}: {refusal}")
    raise refusal


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


async def fetch_json(url: str, headers: Mapping[str, str], what: str) -> Any:
    """What a service on this host answers. Raises `StorageUnavailable`."""
    try:
        return json.loads(await fetch_text("GET", url, headers, what))
    except ValueError as error:
        raise StorageUnavailable(f"{what}: the answer is no JSON") from error


async def fetch_text(method: str, url: str, headers: Mapping[str, str], what: str) -> str:
    """The same as text. Such services are never asked through a proxy."""
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers) as answer,
        ):
            text = await answer.text()
            if answer.status != 200:
                raise StorageUnavailable(f"{what}: status {answer.status}")
            return text
    except VENDOR_ERRORS as error:
        raise unreachable(what, error) from error
