"""`aliyun-kms`: a symmetric key of Alibaba Cloud Key Management Service.

Data keys come from `GenerateDataKey` or are wrapped by `Encrypt`, and are unwrapped by `Decrypt`,
each bound to its encryption context. Credentials are found as for OSS storages: the same options,
the same chain. Calls are RPC of version 2016-01-20, signed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import Field

from agent.errors import (
    ConfigError,
    KeyServiceUnavailable,
    KeyUnusable,
    TidelogError,
    Transient,
)
from agent.keys.base import (
    Context,
    KeyProvider,
    Options,
    ProviderOptions,
    fingerprint_of,
    parsed,
)
from agent.storage.aliyun.credentials import CredentialChain, Signer
from agent.storage.aliyun.rpc import Answered, RpcService, refused
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import Kek, KeyDescription, KeyState, kek_id
from agent.wire.secrets import Secret
from agent.wire.storage_oss import OssCredentials

NAME: Final = "aliyun-kms"
AUTO: Final = "auto"
"""In place of a key: have one made."""
VERSION: Final = "2016-01-20"
TAG: Final = "tidelog-repository"

_STATES: Final[Mapping[str, KeyState]] = {
    "Enabled": KeyState.ENABLED,
    "Disabled": KeyState.DISABLED,
    "PendingDeletion": KeyState.PENDING_DELETION,
    "PendingImport": KeyState.PENDING_IMPORT,
}
_UNUSABLE: Final[Mapping[str, tuple[str, str]]] = {
    "Rejected.Disabled": ("it is disabled", "enable the key in KMS"),
    "Rejected.PendingDeletion": (
        "it is to be deleted",
        "cancel its deletion in KMS now: without it no backup under it can ever be read",
    ),
    "Rejected.PendingImport": ("its key material is missing", "import the material again"),
    "Rejected.Unavailable": ("its state does not allow it", "look at the key in KMS"),
    "Forbidden.KeyNotFound": (
        "there is no such key",
        "a deleted key is gone for good; restore by another wrap (ctl encryption status)",
    ),
    "Forbidden.AliasNotFound": ("there is no such alias", "name the key by its id"),
    "Forbidden.NoPermission": (
        "access is denied",
        "allow kms:GenerateDataKey, kms:Encrypt, kms:Decrypt and kms:DescribeKey in the RAM policy",
    ),
    "InvalidParameter": (
        "it is another key than the one this was wrapped with, or the wrapped key was changed",
        "the repository names the key of each wrap: ctl encryption status",
    ),
}
_GONE: Final = ("Forbidden.KeyNotFound", "Forbidden.AliasNotFound")


class AliyunKmsOptions(ProviderOptions):
    """Options of this provider."""

    key_id: str = Field(min_length=1)
    """A key id, an ARN, `alias/NAME`, or `auto`."""
    region: str | None = None
    endpoint_url: str | None = None
    """By default `https://kms.<region>.aliyuncs.com`; inside a VPC `kms-vpc.<region>`."""
    credentials: OssCredentials = OssCredentials()
    insecure_skip_tls_verify: bool = False


class AliyunKmsProvider:
    """See the module."""

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        self._options = parsed(AliyunKmsOptions, options, NAME)
        given = self._options.credentials
        for secret in (given.access_key_secret, given.security_token):
            if isinstance(secret, Secret) and secret.is_literal:
                raise ConfigError(
                    f"{NAME}: a secret in clear would be stored",
                    hint="write {file: /PATH}, {env: NAME} or {credential: NAME}",
                )
        region = self._region(surroundings)
        tls = not self._options.insecure_skip_tls_verify
        self._signer: Signer = CredentialChain(given, surroundings, region=region, tls=tls).signer()
        endpoint = self._options.endpoint_url or f"https://kms.{region}.aliyuncs.com"
        self._service = RpcService(endpoint, VERSION, surroundings, tls)
        self._made: str | None = None

    def _region(self, surroundings: Surroundings) -> str | None:
        around = surroundings.environment
        region = (
            self._options.region
            or _region_of(self._options.key_id)
            or around.get("ALIBABA_CLOUD_REGION_ID")
        )
        if not region and not self._options.endpoint_url:
            raise ConfigError(
                f"{NAME}: the region of the key is not known",
                hint="give the option region, such as eu-central-1, or the ARN of the key",
            )
        return region

    @property
    def name(self) -> str:
        """See `KeyProvider`."""
        return NAME

    @property
    def _key(self) -> str:
        return self._made or self._options.key_id

    @property
    def label(self) -> str:
        """For people."""
        return f"the {NAME} key {self._key}"

    async def kek(self) -> Kek:
        """See `KeyProvider`. An alias is resolved: what it points to later is another key."""
        if self._key == AUTO:
            answer = await self._ask(
                "CreateKey",
                Description="Wraps the data keys of Tidelog backups",
                KeyUsage="ENCRYPT/DECRYPT",
            )
            self._made = str(answer["KeyMetadata"]["KeyId"])
        found = (await self._ask("DescribeKey", KeyId=self._key))["KeyMetadata"]
        arn, key_id = str(found["Arn"]), str(found["KeyId"])
        kept = {**self._options.to_options(), "keyId": key_id}
        kept = {name: value for name, value in kept.items() if value not in (None, {})}
        given = self._options.key_id
        return Kek(
            id=kek_id(NAME, arn, arn),
            provider=NAME,
            key=arn,
            alias=given if given.startswith("alias/") else await self._alias(key_id),
            options=kept,
            fingerprint=fingerprint_of(arn.encode()),
            is_service=True,
        )

    async def _alias(self, key_id: str) -> str | None:
        try:
            answer = await self._ask("ListAliasesByKeyId", KeyId=key_id)
        except TidelogError:
            return None  # a name for people; not everybody may ask for it
        found = answer.get("Aliases", {}).get("Alias", [])
        return str(found[0]["AliasName"]) if found else None

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        answer = await self._ask(
            "GenerateDataKey", KeyId=self._key, KeySpec="AES_256", **_bound(context)
        )
        return base64.b64decode(answer["Plaintext"]), _wrapped(answer)

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        plain = base64.b64encode(data_key).decode()
        return _wrapped(
            await self._ask("Encrypt", KeyId=self._key, Plaintext=plain, **_bound(context))
        )

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`. The service finds the key by what was wrapped."""
        blob = base64.b64encode(wrapped).decode()
        answer = await self._ask("Decrypt", CiphertextBlob=blob, **_bound(context))
        return base64.b64decode(answer["Plaintext"])

    async def describe(self) -> KeyDescription:
        """See `KeyProvider`."""
        try:
            answer = await self._ask("DescribeKey", KeyId=self._key)
        except KeyUnusable as error:
            if any(code in str(error) for code in _GONE):
                return KeyDescription(state=KeyState.DELETED, key=self._key)
            return KeyDescription(state=KeyState.UNKNOWN, key=self._key, warnings=(str(error),))
        found = answer["KeyMetadata"]
        return KeyDescription(
            state=_STATES.get(str(found.get("KeyState")), KeyState.UNKNOWN),
            key=str(found["Arn"]),
            deletion_at=_moment(found.get("DeleteDate")),
        )

    async def mark(self, repository_id: str) -> str | None:
        """See `KeyProvider`."""
        tags = json.dumps([{"TagKey": TAG, "TagValue": repository_id}])
        try:
            await self._ask("TagResource", KeyId=self._key, Tags=tags)
        except TidelogError as error:
            return f"the key could not be tagged as in use: {error}"
        return None

    async def aclose(self) -> None:
        """See `KeyProvider`. Each call has a connection of its own."""

    async def _ask(self, action: str, **parameters: str) -> Any:
        what = f"cannot use {self.label}"
        try:
            return await self._service.call(action, parameters, await self._signer.keys())
        except Answered as error:
            if error.code in _UNUSABLE:
                reason, hint = _UNUSABLE[error.code]
                raise KeyUnusable(f"{what}: {reason} ({error})", hint=hint) from error
            found = refused(error, what)
            raise KeyUnusable(str(found), hint=found.hint or None) from error
        except Transient as error:
            raise KeyServiceUnavailable(f"{what}: {error}") from error
        except ConfigError:
            raise
        except TidelogError as error:
            raise KeyUnusable(f"{what}: {error}", hint=error.hint or None) from error


def _bound(context: Context) -> dict[str, str]:
    return {"EncryptionContext": json.dumps(dict(sorted(context.items())))}


def _wrapped(answer: Mapping[str, Any]) -> bytes:
    return base64.b64decode(answer["CiphertextBlob"])


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None


def _region_of(key: str) -> str | None:
    parts = key.split(":")
    return parts[2] if len(parts) > 4 and parts[0] == "acs" else None


def open_provider(options: Options, surroundings: Surroundings) -> KeyProvider:
    """See `agent.keys.base`."""
    return AliyunKmsProvider(options, surroundings)
