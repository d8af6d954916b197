"""Sessions of roles, from the Security Token Service."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from agent.clock import signing_time
from agent.errors import StorageUnavailable
from agent.storage.aliyun.rpc import Answered, Keys, RpcService, refused
from agent.storage.refreshing import Fresh
from agent.storage.surroundings import Surroundings

VERSION: Final = "2015-04-01"
DURATION_S: Final = 3600
"""The longest that every role allows."""
_NOT_IN_SESSION_NAMES: Final = re.compile(r"[^a-zA-Z0-9.@_-]+")


def endpoint_of(region: str | None) -> str:
    """Where STS is: one in every region, and one for all."""
    return f"https://sts.{region}.aliyuncs.com" if region else "https://sts.aliyuncs.com"


class Sts:
    """Asks for sessions. Each raises errors of `agent.errors`."""

    def __init__(
        self, endpoint: str, surroundings: Surroundings, tls: ssl.SSLContext | bool = True
    ) -> None:
        self._service = RpcService(endpoint, VERSION, surroundings, tls)
        self._surroundings = surroundings

    async def assume(
        self, role: str, keys: Keys, *, session_name: str | None, external_id: str | None
    ) -> Fresh[Keys]:
        """AssumeRole."""
        more = {} if external_id is None else {"ExternalId": external_id}
        return await self._ask("AssumeRole", role, session_name, more, keys)

    async def assume_by_token(
        self, role: str, provider: str, token: str, *, session_name: str | None
    ) -> Fresh[Keys]:
        """AssumeRoleWithOIDC: the token is the proof, nothing is signed."""
        more = {"OIDCProviderArn": provider, "OIDCToken": token}
        return await self._ask("AssumeRoleWithOIDC", role, session_name, more, None)

    async def caller(self, keys: Keys) -> str:
        """GetCallerIdentity, which everybody may ask."""
        what = "cannot ask whose keys these are"
        try:
            return str((await self._service.call("GetCallerIdentity", {}, keys)).get("Arn"))
        except Answered as error:
            raise refused(error, what) from error

    def session_name(self, given: str | None) -> str:
        """Names the node in the audit log, of 2 to 64 characters that STS takes."""
        name = _NOT_IN_SESSION_NAMES.sub("-", self._surroundings.session_name(given))
        return name if len(name) > 1 else f"{name}-"

    async def _ask(
        self,
        action: str,
        role: str,
        session_name: str | None,
        more: Mapping[str, str],
        keys: Keys | None,
    ) -> Fresh[Keys]:
        name = self.session_name(session_name)
        what = f"cannot assume the role {role} as {name}"
        parameters = {"RoleArn": role, "RoleSessionName": name, "DurationSeconds": str(DURATION_S)}
        try:
            answer = await self._service.call(action, {**parameters, **more}, keys)
        except Answered as error:
            raise refused(error, what) from error
        return session_in(answer.get("Credentials"), what)


def session_in(found: Any, what: str) -> Fresh[Keys]:
    """A session as all services of the vendor spell it. Its life is measured by the clock of this
    host, which must be right within minutes anyway for its signatures to be accepted."""
    try:
        keys = Keys(found["AccessKeyId"], found["AccessKeySecret"], found["SecurityToken"])
        ends = datetime.fromisoformat(found["Expiration"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageUnavailable(f"{what}: the answer holds no credentials") from error
    return Fresh(keys, max(0.0, (ends - signing_time()).total_seconds()))
