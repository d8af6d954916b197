"""`aliyun-kms`: a symmetric key of Alibaba Cloud Key Management Service.

Data keys come from `GenerateDataKey` or are wrapped by `Encrypt`, and are unwrapped by `Decrypt`,
each bound to its encryption context. Credentials are found as for OSS storages: the same options,
the same chain. Calls are RPC of version 2016-01-20, signed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agent.errors import (
    ConfigError,
    KeyServiceUnavailable,
    KeyUnusable,
    TidelogError,
    Transient,
)
from agent.keys.base import Context, KeyProvider, Options
from agent.keys.service import PURPOSE, ServiceKey, ServiceOptions, ServiceProvider
from agent.storage.aliyun.credentials import CredentialChain, Signer
from agent.storage.aliyun.rpc import Answered, RpcService, refused
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import KeyState
from agent.wire.storage_oss import OssCredentials

NAME: Final = "aliyun-kms"
VERSION: Final = "2016-01-20"

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


class AliyunKmsOptions(ServiceOptions):
    """Options of this provider. The endpoint is by default `https://kms.<region>.aliyuncs.com`;
    inside a VPC `kms-vpc.<region>`."""

    credentials: OssCredentials = OssCredentials()


class AliyunKmsProvider(ServiceProvider[AliyunKmsOptions]):
    """See the module."""

    name = NAME
    gone = ("Forbidden.KeyNotFound", "Forbidden.AliasNotFound")

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        super().__init__(AliyunKmsOptions, options, surroundings)
        region = self._region()
        tls = not self.options.insecure_skip_tls_verify
        given = self.options.credentials
        self._signer: Signer = CredentialChain(given, surroundings, region=region, tls=tls).signer()
        endpoint = self.options.endpoint_url or f"https://kms.{region}.aliyuncs.com"
        self._service = RpcService(endpoint, VERSION, surroundings, tls)

    def _region(self) -> str | None:
        region = (
            self.options.region
            or _region_of(self.options.key_id)
            or self.surroundings.environment.get("ALIBABA_CLOUD_REGION_ID")
        )
        if not region and not self.options.endpoint_url:
            raise ConfigError(
                f"{NAME}: the region of the key is not known",
                hint="give the option region, such as eu-central-1, or the ARN of the key",
            )
        return region

    async def looked_up(self) -> ServiceKey:
        """See `ServiceProvider`."""
        found = (await self._ask("DescribeKey", KeyId=self.key))["KeyMetadata"]
        return ServiceKey(
            arn=str(found["Arn"]),
            kept_id=str(found["KeyId"]),
            state=_STATES.get(str(found.get("KeyState")), KeyState.UNKNOWN),
            deletion_at=_moment(found.get("DeleteDate")),
        )

    async def made(self) -> str:
        """See `ServiceProvider`."""
        answer = await self._ask("CreateKey", Description=PURPOSE, KeyUsage="ENCRYPT/DECRYPT")
        return str(answer["KeyMetadata"]["KeyId"])

    async def aliases(self, key: ServiceKey) -> Sequence[str]:
        """See `ServiceProvider`."""
        answer = await self._ask("ListAliasesByKeyId", KeyId=key.kept_id)
        return [str(row["AliasName"]) for row in answer.get("Aliases", {}).get("Alias", [])]

    async def tag(self, name: str, value: str) -> None:
        """See `ServiceProvider`."""
        tags = json.dumps([{"TagKey": name, "TagValue": value}])
        await self._ask("TagResource", KeyId=self.key, Tags=tags)

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        answer = await self._ask(
            "GenerateDataKey", KeyId=self.key, KeySpec="AES_256", **_bound(context)
        )
        return base64.b64decode(answer["Plaintext"]), _wrapped(answer)

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        plain = base64.b64encode(data_key).decode()
        return _wrapped(
            await self._ask("Encrypt", KeyId=self.key, Plaintext=plain, **_bound(context))
        )

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`. The service finds the key by what was wrapped."""
        blob = base64.b64encode(wrapped).decode()
        answer = await self._ask("Decrypt", CiphertextBlob=blob, **_bound(context))
        return base64.b64decode(answer["Plaintext"])

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
