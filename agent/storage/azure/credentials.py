"""Whom requests to Azure are made for: the chain of `agent.storage.precedence`.

Explicit credentials and those of the environment are looked at before each request, so that a
rotated file is used at once. Identities are left to azure-identity, which keeps their tokens fresh,
in the middle of an upload, too; a federated token file is read again at each renewal.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from azure.core.pipeline.transport import AsyncHttpTransport
from azure.identity.aio import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from agent.errors import ConfigError
from agent.storage.precedence import Choice, Link, choose
from agent.storage.surroundings import Surroundings
from agent.wire.secrets import LITERAL
from agent.wire.storage_azure import AzureSettings

TOKEN_SCOPE: Final = "https://storage.azure.com/.default"
_PUBLIC: Final = "core.windows.net"
_EMULATOR: Final = "http://127.0.0.1:10000/devstoreaccount1"


@dataclass(frozen=True)
class Login:
    """How to reach an account, and as whom. Two are equal if they hold the same secrets."""

    account: str
    endpoint: str
    """The URL of the account."""
    secret: Any = field(default=None, repr=False)
    """What the SDK wants as a credential; None: an identity has to be asked for."""

    @property
    def sas(self) -> str | None:
        """The SAS token, if it is one."""
        return self.secret if isinstance(self.secret, str) else None

    @property
    def in_words(self) -> str:
        """Which key or token it is, without showing it."""
        if self.sas is None:
            return f"the key of the account {self.account}"
        allows, ends = sas_fact(self.sas, "sp"), sas_fact(self.sas, "se")
        return f"a SAS token of the account {self.account} that allows {allows} until {ends}"


class CredentialChain:
    """Finds what applies, for one set of settings on one host."""

    def __init__(self, settings: AzureSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._given = settings.credentials
        self._environment: Mapping[str, str] = surroundings.environment
        self._reader = surroundings.secrets
        self.choice = self._choose()

    def login(self) -> Login:
        """What holds now. Raises `ConfigError`."""
        if self.choice.base is Link.EXPLICIT:
            return self._login(*self._explicit())
        if self.choice.base is Link.ENVIRONMENT:
            found = self._environment.get
            return self._login(
                found("AZURE_STORAGE_CONNECTION_STRING"),
                found("AZURE_STORAGE_KEY"),
                found("AZURE_STORAGE_SAS_TOKEN"),
            )
        return self._login(None, None, None)

    def _explicit(self) -> tuple[str | None, str | None, str | None]:
        """Connection string, key and SAS token, of which one is there."""
        given = (self._given.connection_string, self._given.key, self._given.sas_token)
        named = [secret for secret in given if secret is not None]
        if len(named) < 2:
            string, key, sas = map(self._reader.optional, given)
            return string, key, sas
        string, key, sas = map(self._reader.mounted, given)
        found = [secret for secret in (string, key, sas) if secret is not None]
        if len(found) != 1:
            raise ConfigError(
                f"{len(found)} of {len(named)} ways to log in to Azure are mounted: "
                + ", ".join(secret.source for secret in named),
                hint="the secret must have exactly one of these entries",
            )
        return string, key, sas

    @property
    def may_change(self) -> bool:
        """Whether other credentials may be found when it is looked again."""
        given = self._given
        secrets = (given.connection_string, given.key, given.sas_token)
        return any(secret is not None and secret.kind != LITERAL for secret in secrets)

    def identity(self, transport: AsyncHttpTransport[Any, Any]) -> Any:
        """Who gives tokens where there is no key. The caller closes it."""
        client_id = self._given.client_id or self._environment.get("AZURE_CLIENT_ID")
        tenant_id = self._given.tenant_id or self._environment.get("AZURE_TENANT_ID")
        common: dict[str, Any] = {"transport": transport}
        authority = self._environment.get("AZURE_AUTHORITY_HOST")
        if authority:
            common |= {"authority": authority, "disable_instance_discovery": True}
        if self.choice.base is Link.METADATA:
            return ManagedIdentityCredential(client_id=client_id, transport=transport)
        if not client_id or not tenant_id:
            raise ConfigError(
                "an identity of Azure needs a client id and a tenant id",
                hint="set clientId and tenantId, or AZURE_CLIENT_ID and AZURE_TENANT_ID",
            )
        if self.choice.base is Link.WEB_IDENTITY:
            return WorkloadIdentityCredential(
                tenant_id=tenant_id,
                client_id=client_id,
                token_file_path=self._environment["AZURE_FEDERATED_TOKEN_FILE"],
                **common,
            )
        certificate = self._environment.get("AZURE_CLIENT_CERTIFICATE_PATH")
        if self.choice.base is Link.ENVIRONMENT and certificate:
            password = self._environment.get("AZURE_CLIENT_CERTIFICATE_PASSWORD")
            return CertificateCredential(
                tenant_id, client_id, certificate, password=password, **common
            )
        secret = self._reader.optional(self._given.client_secret)
        secret = secret or self._environment.get("AZURE_CLIENT_SECRET", "")
        return ClientSecretCredential(tenant_id, client_id, secret, **common)

    def _choose(self) -> Choice:
        given, around = self._given, self._environment.get
        has_key = given.connection_string or given.key or given.sas_token or given.client_secret
        wants_identity = given.inherit_from_azure_ad
        keys_around = (
            around("AZURE_STORAGE_CONNECTION_STRING"),
            around("AZURE_STORAGE_KEY"),
            around("AZURE_STORAGE_SAS_TOKEN"),
        )
        application_around = around("AZURE_CLIENT_ID") and (
            around("AZURE_CLIENT_SECRET") or around("AZURE_CLIENT_CERTIFICATE_PATH")
        )
        present = {
            Link.EXPLICIT: bool(has_key),
            Link.WEB_IDENTITY: bool(around("AZURE_FEDERATED_TOKEN_FILE")),
            Link.ENVIRONMENT: bool(application_around or (any(keys_around) and not wants_identity)),
        }
        return choose([link for link, is_there in present.items() if is_there])

    def _login(self, string: str | None, key: str | None, sas: str | None) -> Login:
        account = self._reader.optional(self._settings.account)
        account = account or self._environment.get("AZURE_STORAGE_ACCOUNT")
        if string:
            return self._of_string(string)
        endpoint = self._settings.endpoint_url
        if not account and endpoint is None:
            raise ConfigError(
                "the settings name no storage account",
                hint="set storage.azure.account, or write the account into url",
            )
        if endpoint is None:
            endpoint = f"https://{account}.blob.{_PUBLIC}"
        if key:
            return Login(account or "", endpoint, _key_pair(account, key))
        return Login(account or "", endpoint, sas.lstrip("?") if sas else None)

    def _of_string(self, string: str) -> Login:
        pieces = [part.partition("=") for part in string.split(";") if part.strip()]
        parts = {name.strip().lower(): value for name, _, value in pieces}
        account = parts.get("accountname", "")
        if parts.get("usedevelopmentstorage") == "true":
            raise ConfigError(
                "UseDevelopmentStorage is not supported",
                hint=f"write the emulator's BlobEndpoint={_EMULATOR} and its key",
            )
        key, sas = parts.get("accountkey"), parts.get("sharedaccesssignature")
        if not (account and key) and not sas:
            raise ConfigError(
                "connectionString holds neither AccountName and AccountKey nor "
                "SharedAccessSignature"
            )
        endpoint = self._settings.endpoint_url or parts.get("blobendpoint")
        if not endpoint:
            scheme = parts.get("defaultendpointsprotocol", "https")
            endpoint = f"{scheme}://{account}.blob.{parts.get('endpointsuffix', _PUBLIC)}"
        if key:
            return Login(account, endpoint, _key_pair(account, key))
        return Login(account, endpoint, (sas or "").lstrip("?"))


class _KeyPair(dict[str, Any]):
    """What the SDK takes for a shared key; shows nothing of it."""

    def __repr__(self) -> str:
        return "KeyPair(***)"


def _key_pair(account: str | None, key: str) -> _KeyPair:
    try:
        base64.b64decode(key)
    except ValueError:
        raise ConfigError(
            "the key of the storage account is not Base64",
            hint="copy the whole of it: 'az storage account keys list' shows it",
        ) from None
    return _KeyPair(account_name=account, account_key=key)


def sas_fact(token: str, name: str) -> str | None:
    """What a SAS token says of itself: `se` is when it ends in ISO 8601, `sp` what it allows."""
    found = parse_qs(token).get(name)
    return found[0] if found else None


def identity_in(token: str) -> str:
    """Whom a token of Microsoft's directory is for, as it says itself; it is the storage that
    checks it."""
    try:
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        name = next(filter(None, map(claims.get, ("upn", "appid", "oid", "sub"))), "unnamed")
        return f"identity {name} of the directory {claims.get('tid', 'unnamed')}"
    except (IndexError, ValueError, AttributeError):
        return "an identity, by a token that does not name it"
