"""Whom requests to Alibaba Cloud are signed for: the chain of `agent.storage.precedence`.

Explicit keys are read each time, so a rotated file is used at once. Sessions of roles are renewed
before they end, in the middle of an upload, too; the token file of a web identity is read again at
each renewal. One chain serves storage and key management.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from agent.errors import ConfigError
from agent.storage.aliyun.metadata import container_uri, instance_role
from agent.storage.aliyun.rpc import Keys
from agent.storage.aliyun.sts import Sts, endpoint_of
from agent.storage.precedence import Choice, Link, choose
from agent.storage.refreshing import Fresh, Refreshing
from agent.storage.surroundings import Surroundings
from agent.wire.storage_oss import OssCredentials

Fetch = Callable[[], Awaitable[Fresh[Keys]]]

_KEY_ID: Final = ("ALIBABA_CLOUD_ACCESS_KEY_ID", "OSS_ACCESS_KEY_ID")
_SECRET: Final = ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "OSS_ACCESS_KEY_SECRET")
_TOKEN: Final = ("ALIBABA_CLOUD_SECURITY_TOKEN", "OSS_SESSION_TOKEN")
"""Two spellings: of the vendor's general libraries, and of those for the storage only."""
_CLI_FILE: Final = ".aliyun/config.json"
"""Below the home directory."""
TEMPORARY_PREFIX: Final = "STS."
METADATA_URL: Final = "http://100.100.100.200"
"""Where an instance of ECS answers."""


class Signer:
    """Asked for keys before each request."""

    def __init__(self, fetch: Fetch, choice: Choice, surroundings: Surroundings) -> None:
        self.choice = choice
        self._refreshing = Refreshing(fetch, surroundings.clock)

    async def keys(self) -> Keys:
        """The keys to sign with now. Raises errors of `agent.errors`."""
        return await self._refreshing.get()

    def forget(self, keys: Keys) -> bool:
        """The server said that these expired: fetch others. False where there are no others."""
        self._refreshing.forget(keys)
        return self.choice.base is not Link.EXPLICIT or self.choice.role is not None


class CredentialChain:
    """Finds what applies, for one set of settings on one host."""

    def __init__(
        self,
        settings: OssCredentials,
        surroundings: Surroundings,
        *,
        region: str | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._reader = surroundings.secrets
        self._sts = Sts(settings.sts_endpoint_url or endpoint_of(region), surroundings, tls)

    def choice(self) -> Choice:
        """Which link of the chain wins."""
        role = self._around("ALIBABA_CLOUD_ROLE_ARN")
        identity = self._around("ALIBABA_CLOUD_OIDC_TOKEN_FILE")
        provider = self._around("ALIBABA_CLOUD_OIDC_PROVIDER_ARN")
        present = {
            Link.EXPLICIT: self._settings.access_key_id is not None,
            Link.WEB_IDENTITY: bool(identity and provider and (role or self._settings.role_arn)),
            Link.ENVIRONMENT: bool(self._around(*_KEY_ID) and self._around(*_SECRET)),
            Link.PROFILE: bool(self._around("ALIBABA_CLOUD_PROFILE")),
        }
        if present[Link.WEB_IDENTITY]:
            role = role or self._settings.role_arn
        return choose(
            [link for link, is_there in present.items() if is_there],
            settings_role=self._settings.role_arn,
            ambient_role=role,
        )

    def signer(self) -> Signer:
        """What requests are signed with."""
        choice = self.choice()
        base: Mapping[Link, Fetch] = {
            Link.EXPLICIT: self._explicit,
            Link.WEB_IDENTITY: self._web_identity,
            Link.ENVIRONMENT: self._environment,
            Link.PROFILE: self._profile,
            Link.METADATA: self._metadata,
        }
        fetch = base[choice.base]
        if choice.role is not None:
            fetch = self._assuming(fetch, choice.role)
        return Signer(fetch, choice, self._surroundings)

    async def whoami(self, keys: Keys) -> str:
        """The ARN of whom keys belong to. Raises errors of `agent.errors`."""
        return await self._sts.caller(keys)

    def _around(self, *names: str) -> str | None:
        found = (self._surroundings.environment.get(name) for name in names)
        return next(filter(None, found), None)

    def _session_name(self) -> str | None:
        return self._settings.session_name or self._around("ALIBABA_CLOUD_ROLE_SESSION_NAME")

    async def _explicit(self) -> Fresh[Keys]:
        keys = Keys(
            self._reader.optional(self._settings.access_key_id) or "",
            self._reader.optional(self._settings.access_key_secret) or "",
            self._reader.optional(self._settings.security_token),
        )
        return Fresh(
            _whole(keys, "credentials.securityToken"), 0.0
        )  # files are looked at each time

    async def _environment(self) -> Fresh[Keys]:
        keys = Keys(
            self._around(*_KEY_ID) or "", self._around(*_SECRET) or "", self._around(*_TOKEN)
        )
        return Fresh(_whole(keys, " or ".join(_TOKEN)), 0.0)

    async def _web_identity(self) -> Fresh[Keys]:
        role = self._around("ALIBABA_CLOUD_ROLE_ARN") or self._settings.role_arn or ""
        token = self._reader.file(Path(self._around("ALIBABA_CLOUD_OIDC_TOKEN_FILE") or ""))
        provider = self._around("ALIBABA_CLOUD_OIDC_PROVIDER_ARN") or ""
        return await self._sts.assume_by_token(
            role, provider, token, session_name=self._session_name()
        )

    async def _profile(self) -> Fresh[Keys]:
        name = self._around("ALIBABA_CLOUD_PROFILE") or ""
        home = Path(self._around("HOME") or "/")
        path = Path(self._around("ALIBABA_CLOUD_CONFIG_FILE") or home / _CLI_FILE)
        found = _profile_in(self._reader.file(path), name, path)
        keys = Keys(
            str(found.get("access_key_id", "")),
            str(found.get("access_key_secret", "")),
            found.get("sts_token") or None,
        )
        return Fresh(_whole(keys, "sts_token"), 0.0)

    async def _metadata(self) -> Fresh[Keys]:
        uri = self._around("ALIBABA_CLOUD_CREDENTIALS_URI")
        if uri is not None:
            return await container_uri(uri)
        return await instance_role(self._around("ALIBABA_CLOUD_ECS_METADATA"), METADATA_URL)

    def _assuming(self, base: Fetch, role: str) -> Fetch:
        async def fetch() -> Fresh[Keys]:
            return await self._sts.assume(
                role,
                (await base()).value,
                session_name=self._session_name(),
                external_id=self._settings.external_id,
            )

        return fetch


def _whole(keys: Keys, where: str) -> Keys:
    if keys.access_key.startswith(TEMPORARY_PREFIX) and not keys.token:
        raise ConfigError(
            "the access key is one of a temporary session (STS.…) and its token is missing: "
            "Alibaba Cloud would refuse every request",
            hint=f"give the token of the session as {where}, or the permanent key of a RAM user",
        )
    return keys


def _profile_in(text: str, name: str, path: Path) -> dict[str, Any]:
    try:
        profiles = json.loads(text)["profiles"]
        found: dict[str, Any] = next(each for each in profiles if each["name"] == name)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no configuration of Alibaba Cloud's CLI") from error
    except StopIteration:
        raise ConfigError(f"{path} has no profile {name!r}") from None
    if found.get("mode", "AK") not in ("AK", "StsToken"):
        raise ConfigError(
            f"the profile {name!r} of {path} has the mode {found.get('mode')!r}",
            hint="use a profile of mode AK or StsToken, and name the role in the settings",
        )
    return found
