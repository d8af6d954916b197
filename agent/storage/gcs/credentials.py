"""Whose token requests to Google carry: the chain of `agent.storage.precedence`, kept fresh.

What a token is made of (the JSON of a service account, of an external account, a metadata server)
is looked for anew at each renewal, so a rotated key or a projected token file is used in the middle
of an upload. How one is asked for is gcloud-aio-auth's business; when, is ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final

import aiohttp
from gcloud.aio.auth import Token

from agent.errors import ConfigError, PermissionDenied, StorageUnavailable
from agent.storage.gcs.errors import VENDOR_ERRORS, judged, translated
from agent.storage.precedence import Choice, Link, choose
from agent.storage.refreshing import Fresh, Refreshing
from agent.storage.surroundings import Surroundings
from agent.wire.storage_gcs import GcsSettings

SCOPE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
TOKEN_TIMEOUT_S: Final = 15
_TOKEN_URL: Final = "https://oauth2.googleapis.com/token"
_METADATA_PATH: Final = "computeMetadata/v1/instance/service-accounts/default"
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "service_account": ("client_email", "private_key"),
    "external_account": ("audience", "subject_token_type", "token_url", "credential_source"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "impersonated_service_account": ("service_account_impersonation_url", "source_credentials"),
}


class CredentialChain:
    """Finds what applies, for one set of settings on one host."""

    def __init__(
        self,
        settings: GcsSettings,
        surroundings: Surroundings,
        session: aiohttp.ClientSession,
    ) -> None:
        self._given = settings.credentials
        self._environment: Mapping[str, str] = surroundings.environment
        self._reader = surroundings.secrets
        self._session: Any = session
        self._refreshing = Refreshing(self._fetch, surroundings.clock)
        self._clock = surroundings.clock
        self._fetched_at = 0.0
        self._last: str | None = None
        if self._given.hmac_access_key or self._given.hmac_secret:
            raise ConfigError(
                "HMAC keys are not used with type: gcs",
                hint="use type: s3 with endpointUrl: https://storage.googleapis.com, or give the "
                "JSON of a service account",
            )
        self.choice = self._choose()

    async def header(self) -> str | None:
        """What goes into `Authorization`. Raises errors of `agent.errors`."""
        if self.is_anonymous:
            return None
        self._last = await self._refreshing.get()
        return f"Bearer {self._last}"

    async def identity(self) -> str:
        """Whom the token is for. Raises errors of `agent.errors`."""
        if self.is_anonymous:
            return "nobody: an emulator asks for no token"
        found = self._document()
        named = found.get("client_email") or found.get("service_account_impersonation_url")
        if named:
            return str(named).rpartition("/")[2].partition(":")[0]
        if found:
            return (
                f"{found['type']} {found.get('audience') or found.get('client_id') or ''}".strip()
            )
        return await self._email_of_host()

    async def _email_of_host(self) -> str:
        url = self._metadata_url("email")
        try:
            async with self._session.get(
                url,
                headers={"Metadata-Flavor": "Google"},
                timeout=aiohttp.ClientTimeout(total=TOKEN_TIMEOUT_S),
            ) as answer:
                answer.raise_for_status()
                return str(await answer.text()).strip()
        except VENDOR_ERRORS as error:
            raise translated(error, "cannot ask the metadata server for the account") from error

    def _metadata_url(self, what: str) -> str:
        host = self._environment.get("GCE_METADATA_HOST", "metadata.google.internal")
        return f"http://{host}/{_METADATA_PATH}/{what}"

    def forget(self, *, older_than_s: float) -> bool:
        """The server refused the token: the next request has another. False if it was new."""
        if self._last is None or self._clock.monotonic() - self._fetched_at < older_than_s:
            return False
        self._refreshing.forget(self._last)
        return True

    @property
    def is_anonymous(self) -> bool:
        """An emulator takes requests from everybody."""
        return self.choice.base is Link.METADATA and bool(
            self._environment.get("STORAGE_EMULATOR_HOST")
        )

    def _choose(self) -> Choice:
        given = self._given
        explicit = given.application_credentials or given.file or given.client_email
        variable = self._variable()
        is_federated = False
        if variable is not None and not explicit and not given.gke_environment:
            is_federated = self._parsed(self._reader.file(variable))["type"] == "external_account"
        present = {
            Link.EXPLICIT: bool(explicit),
            Link.WEB_IDENTITY: is_federated,
            Link.ENVIRONMENT: variable is not None and not given.gke_environment,
            Link.PROFILE: self._profile().is_file() and not given.gke_environment,
        }
        return choose([link for link, is_there in present.items() if is_there])

    def _variable(self) -> Path | None:
        found = self._environment.get("GOOGLE_APPLICATION_CREDENTIALS")
        return Path(found) if found else None

    def _profile(self) -> Path:
        config = self._environment.get("CLOUDSDK_CONFIG")
        home = Path(self._environment.get("HOME") or "/nonexistent")
        directory = Path(config) if config else home / ".config/gcloud"
        return directory / "application_default_credentials.json"

    def _document(self) -> dict[str, Any]:
        """What a token is made of; empty: the metadata server."""
        given, base = self._given, self.choice.base
        if base is Link.METADATA:
            return {}
        if base in (Link.WEB_IDENTITY, Link.ENVIRONMENT):
            return self._parsed(self._reader.file(self._variable() or Path()))
        if base is Link.PROFILE:
            return self._parsed(self._reader.file(self._profile()))
        if given.application_credentials is not None:
            return self._parsed(self._reader.text(given.application_credentials))
        if given.file is not None:
            return self._parsed(self._reader.file(Path(given.file)))
        key = self._reader.optional(given.private_key)
        if key is None:
            raise ConfigError("clientEmail needs privateKey")
        # In PBM's files the line ends of the key are often written as two characters.
        key = key.replace("\\n", "\n")
        email = given.client_email
        return {"type": "service_account", "client_email": email, "private_key": key}

    @staticmethod
    def _parsed(text: str) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except ValueError as error:
            raise ConfigError("the Google credentials are no JSON") from error
        kind = found.get("type") if isinstance(found, dict) else None
        needed = _NEEDED.get(str(kind))
        if needed is None:
            raise ConfigError(
                f"Google credentials of type {kind!r} cannot be used",
                hint=f"one of: {', '.join(_NEEDED)}",
            )
        missing = [name for name in needed if not found.get(name)]
        if missing:
            raise ConfigError(f"the Google credentials of type {kind} lack {', '.join(missing)}")
        return {"token_uri": _TOKEN_URL, **found}

    async def _fetch(self) -> Fresh[str]:
        document = self._document()
        what = f"cannot get a token of Google ({self.choice.link.value})"
        try:
            token = Token(StringIO(json.dumps(document)), self._session, scopes=[SCOPE])
            if not document:
                token.token_uri = self._metadata_url("token")
            answer = await token.refresh(timeout=TOKEN_TIMEOUT_S)
        except aiohttp.ClientResponseError as error:
            found = judged(error.status, b"", {}, f"{what}: {error.message}")
            if isinstance(found, StorageUnavailable) or error.status in (429, 503):
                raise found from error
            raise PermissionDenied(str(found), hint=_HINT) from error
        except VENDOR_ERRORS as error:
            raise translated(error, what) from error
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{what}: {type(error).__name__} in the credentials") from error
        self._fetched_at = self._clock.monotonic()
        return Fresh(answer.value, float(answer.expires_in))


_HINT: Final = (
    "the key or the trust of the account may be revoked, or the clock of this host wrong; a pod "
    "whose service account was annotated must be restarted to see it"
)
