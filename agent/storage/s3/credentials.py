"""Whom requests to S3 are signed for: the chain of `agent.storage.precedence`, kept fresh.

Explicit keys are read each time a request is signed, so a rotated file is used at once. Sessions of
roles are renewed before they end, in the middle of an upload, too; a token file of a web identity
is read again at each renewal. What lies around (environment, shared files, container and instance
metadata) is left to botocore's own providers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore import UNSIGNED

from agent.errors import PermissionDenied
from agent.storage.precedence import Choice, Link, choose
from agent.storage.refreshing import Fresh, Refreshing
from agent.storage.s3.errors import VENDOR_ERRORS, translated
from agent.storage.s3.sessions import new_session
from agent.storage.surroundings import Surroundings
from agent.wire.storage_s3 import DEFAULT_REGION, S3Credentials


class Keys(NamedTuple):
    """What a request is signed with; shows nothing of it."""

    access_key: str | None
    secret_key: str | None
    token: str | None = None
    account_id: str | None = None

    def __repr__(self) -> str:
        return "Keys(***)"


Fetch = Callable[[], Awaitable[Fresh[Keys]]]

AMBIENT_CHECK_S: Final = 1.0
"""botocore renews what it finds by itself; it is asked again so often."""
STS_TIMEOUT_S: Final = 10
SHORTEST_SESSION_S: Final = 900.0


class Signer(AioCredentials):  # type: ignore[misc]
    """What aiobotocore asks for keys before each request."""

    def __init__(self, fetch: Fetch, choice: Choice, surroundings: Surroundings) -> None:
        super().__init__("", "", method=choice.link.value)
        self.choice = choice
        self._refreshing = Refreshing(fetch, surroundings.clock)
        self._last: Keys | None = None

    async def get_frozen_credentials(self) -> Keys:
        """The keys to sign with now. Raises errors of `agent.errors`."""
        self._last = await self._refreshing.get()
        return self._last

    def forget(self) -> bool:
        """The server said that they expired: fetch others. False where there are no others."""
        if self._last is not None:
            self._refreshing.forget(self._last)
        return self.choice.base is not Link.EXPLICIT or self.choice.role is not None


class CredentialChain:
    """Finds what applies, for one set of settings on one host."""

    def __init__(
        self,
        settings: S3Credentials,
        surroundings: Surroundings,
        *,
        region: str | None,
        verify: str | bool | None,
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._environment = surroundings.environment
        self._reader = surroundings.secrets
        self._region = region or DEFAULT_REGION
        self._verify = verify
        self._ambient: AioSession | None = None

    def choice(self) -> Choice:
        """Which link of the chain wins."""
        present = {
            Link.EXPLICIT: self._settings.access_key_id is not None,
            Link.WEB_IDENTITY: bool(self._token_file() and self._web_role()),
            Link.ENVIRONMENT: bool(self._environment.get("AWS_ACCESS_KEY_ID")),
            Link.PROFILE: bool(self._settings.profile or self._environment.get("AWS_PROFILE")),
        }
        return choose(
            [link for link, is_there in present.items() if is_there],
            settings_role=self._settings.role_arn,
            ambient_role=self._web_role() if self._token_file() else self._ambient_role(),
        )

    def signer(self) -> Signer:
        """What requests are signed with."""
        choice = self.choice()
        base: Mapping[Link, Fetch] = {
            Link.EXPLICIT: self._explicit,
            Link.WEB_IDENTITY: self._web_identity,
        }
        fetch = base.get(choice.base, self._surrounding)
        if choice.role is not None:
            fetch = self._assuming(fetch, choice.role)
        return Signer(fetch, choice, self._surroundings)

    def _ambient_role(self) -> str | None:
        return self._environment.get("AWS_ROLE_ARN") or None

    def _web_role(self) -> str | None:
        if self._settings.web_identity_token_file:
            return self._settings.role_arn or self._ambient_role()
        return self._ambient_role() or self._settings.role_arn

    def _token_file(self) -> str | None:
        given = self._settings.web_identity_token_file
        return given or self._environment.get("AWS_WEB_IDENTITY_TOKEN_FILE") or None

    def _session_name(self) -> str:
        return self._surroundings.session_name(
            self._settings.session_name
            or self._environment.get("AWS_ROLE_SESSION_NAME")
            or self._environment.get("AWS_SESSION_NAME")
        )

    async def _explicit(self) -> Fresh[Keys]:
        keys = Keys(
            self._reader.optional(self._settings.access_key_id),
            self._reader.optional(self._settings.secret_access_key),
            self._reader.optional(self._settings.session_token),
        )
        return Fresh(keys, 0.0)  # files are looked at for each request

    async def _surrounding(self) -> Fresh[Keys]:
        if self._ambient is None:
            self._ambient = new_session(self._settings.profile)
        try:
            found: Any = await self._ambient.get_credentials()
            if found is None:
                raise PermissionDenied(
                    "no credentials for AWS: neither in the settings nor around this agent",
                    hint="set credentials, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach "
                    "a role; a pod whose service account was annotated must be restarted",
                )
            frozen = await found.get_frozen_credentials()
            keys = Keys(frozen.access_key, frozen.secret_key, frozen.token)
            return Fresh(keys, AMBIENT_CHECK_S)
        except VENDOR_ERRORS as error:
            raise translated(error, "cannot get credentials from around this agent") from error

    async def _web_identity(self) -> Fresh[Keys]:
        token = self._reader.file(Path(self._token_file() or ""))
        role = self._web_role() or ""
        request = {"RoleArn": role, "WebIdentityToken": token}
        return await self._ask_sts("assume_role_with_web_identity", role, request, None)

    def _assuming(self, base: Fetch, role: str) -> Fetch:
        async def fetch() -> Fresh[Keys]:
            keys = (await base()).value
            request = {"RoleArn": role}
            if self._settings.external_id is not None:
                request["ExternalId"] = self._settings.external_id
            return await self._ask_sts("assume_role", role, request, keys)

        return fetch

    async def _ask_sts(
        self, operation: str, role: str, request: dict[str, str], keys: Keys | None
    ) -> Fresh[Keys]:
        name = self._session_name()
        config = AioConfig(
            connect_timeout=STS_TIMEOUT_S,
            read_timeout=STS_TIMEOUT_S,
            retries={"total_max_attempts": 3, "mode": "standard"},
            **({"signature_version": UNSIGNED} if keys is None else {}),
        )
        try:
            async with new_session().create_client(
                "sts",
                region_name=self._region,
                endpoint_url=self._settings.sts_endpoint_url,
                verify=self._verify,
                config=config,
                aws_access_key_id=keys.access_key if keys else "unsigned",
                aws_secret_access_key=keys.secret_key if keys else "unsigned",
                aws_session_token=keys.token if keys else None,
            ) as client:
                answer = await getattr(client, operation)(RoleSessionName=name, **request)
        except VENDOR_ERRORS as error:
            raise translated(error, f"cannot assume the role {role} as {name}") from error
        return _session_of(answer)


def _session_of(answer: Mapping[str, Any]) -> Fresh[Keys]:
    found = answer["Credentials"]
    keys = Keys(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])
    # Measured by the server's clock: that of this host may be wrong.
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if date is None:
        return Fresh(keys, SHORTEST_SESSION_S)
    return Fresh(
        keys, max(0.0, (found["Expiration"] - parsedate_to_datetime(date)).total_seconds())
    )
