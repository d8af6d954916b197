"""`aws-kms`: a symmetric key of AWS Key Management Service.

Data keys come from `GenerateDataKey` (the first key of a policy) or are wrapped by `Encrypt`, and
are unwrapped by `Decrypt`, each bound to its encryption context, so that the service's audit log
says for which repository and data key it was asked. Credentials are found as for S3 storages: the
same options, the same chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final

from aiobotocore.config import AioConfig

from agent.errors import (
    ConfigError,
    KeyServiceUnavailable,
    KeyUnusable,
    Permanent,
    TidelogError,
    Transient,
)
from agent.keys.base import Context, KeyProvider, Options
from agent.keys.service import PURPOSE, ServiceKey, ServiceOptions, ServiceProvider
from agent.storage.s3.credentials import CredentialChain
from agent.storage.s3.errors import VENDOR_ERRORS, translated
from agent.storage.s3.sessions import new_session
from agent.storage.surroundings import Surroundings
from agent.version import VERSION
from agent.wire.encryption import KeyState
from agent.wire.storage_s3 import DEFAULT_REGION, S3Credentials

NAME: Final = "aws-kms"
TIMEOUT_S: Final = 10
ATTEMPTS: Final = 4

_STATES: Final = {
    "Enabled": KeyState.ENABLED,
    "Disabled": KeyState.DISABLED,
    "PendingDeletion": KeyState.PENDING_DELETION,
    "PendingReplicaDeletion": KeyState.PENDING_DELETION,
    "PendingImport": KeyState.PENDING_IMPORT,
    "Unavailable": KeyState.UNKNOWN,
}
_UNUSABLE: Final = {
    "DisabledException": "it is disabled",
    "KMSInvalidStateException": "its state does not allow it",
    "NotFoundException": "there is no such key",
    "InvalidCiphertextException": "it is another key than the one this was wrapped with, or the "
    "wrapped key was changed",
    "IncorrectKeyException": "it is another key than the one this was wrapped with",
    "InvalidKeyUsageException": "it is no key for encryption",
    "AccessDeniedException": "access is denied",
    "UnrecognizedClientException": "the credentials are not known",
    "InvalidGrantTokenException": "access is denied",
}


class AwsKmsOptions(ServiceOptions):
    """Options of this provider."""

    credentials: S3Credentials = S3Credentials()


class AwsKmsProvider(ServiceProvider[AwsKmsOptions]):
    """See the module."""

    name = NAME
    gone = ("NotFoundException",)

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        super().__init__(AwsKmsOptions, options, surroundings)
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def looked_up(self) -> ServiceKey:
        """See `ServiceProvider`."""
        found = (await self._ask("describe_key", KeyId=self.key))["KeyMetadata"]
        arn, deletion_at = str(found["Arn"]), found.get("DeletionDate")
        return ServiceKey(
            arn=arn,
            kept_id=arn,
            state=_STATES.get(str(found.get("KeyState")), KeyState.UNKNOWN),
            deletion_at=deletion_at if isinstance(deletion_at, datetime) else None,
        )

    async def made(self) -> str:
        """See `ServiceProvider`."""
        answer = await self._ask("create_key", Description=PURPOSE, KeyUsage="ENCRYPT_DECRYPT")
        return str(answer["KeyMetadata"]["Arn"])

    async def aliases(self, key: ServiceKey) -> Sequence[str]:
        """See `ServiceProvider`."""
        answer = await self._ask("list_aliases", KeyId=key.arn)
        return [str(row["AliasName"]) for row in answer.get("Aliases", ())]

    async def tag(self, name: str, value: str) -> None:
        """See `ServiceProvider`."""
        tags = [{"TagKey": name, "TagValue": value}]
        await self._ask("tag_resource", KeyId=self.key, Tags=tags)

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        answer = await self._ask(
            "generate_data_key",
            KeyId=self.key,
            KeySpec="AES_256",
            EncryptionContext=dict(context),
        )
        return bytes(answer["Plaintext"]), bytes(answer["CiphertextBlob"])

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        answer = await self._ask(
            "encrypt", KeyId=self.key, Plaintext=data_key, EncryptionContext=dict(context)
        )
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        answer = await self._ask(
            "decrypt", KeyId=self.key, CiphertextBlob=wrapped, EncryptionContext=dict(context)
        )
        return bytes(answer["Plaintext"])

    async def aclose(self) -> None:
        """See `KeyProvider`."""
        self._client = None
        await self._stack.aclose()

    async def _ask(self, operation: str, **request: Any) -> Any:
        what = f"cannot use {self.label}"
        try:
            client = await self._opened()
            return await getattr(client, operation)(**request)
        except (*VENDOR_ERRORS, Permanent) as error:
            raise self._translated(error, what) from error

    async def _opened(self) -> Any:
        if self._client is None:
            options = self.options
            environment = self.surroundings.environment
            region = (
                options.region
                or _region_of(options.key_id)
                or environment.get("AWS_REGION")
                or environment.get("AWS_DEFAULT_REGION")
                or DEFAULT_REGION
            )
            verify = False if options.insecure_skip_tls_verify else None
            chain = CredentialChain(
                options.credentials, self.surroundings, region=region, verify=verify
            )
            self._client = await self._stack.enter_async_context(
                new_session(signer=chain.signer()).create_client(
                    "kms",
                    region_name=region,
                    endpoint_url=options.endpoint_url,
                    verify=verify,
                    config=AioConfig(
                        connect_timeout=TIMEOUT_S,
                        read_timeout=TIMEOUT_S,
                        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                        user_agent_extra=f"tidelog/{VERSION}",
                    ),
                )
            )
        return self._client

    def _translated(self, error: BaseException, what: str) -> TidelogError:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            details = response.get("Error", {})
            code = str(details.get("Code", ""))
            if code in _UNUSABLE:
                told = str(details.get("Message", "")).rstrip(".")
                return KeyUnusable(f"{what}: {_UNUSABLE[code]} ({code}: {told})")
        found = translated(error, what)
        if isinstance(found, Transient):
            return KeyServiceUnavailable(str(found))
        if isinstance(found, ConfigError):
            return found
        return KeyUnusable(str(found))


def _region_of(key: str) -> str | None:
    parts = key.split(":")
    return parts[3] if len(parts) > 5 and parts[0] == "arn" else None


def open_provider(options: Options, surroundings: Surroundings) -> KeyProvider:
    """See `agent.keys.base`."""
    return AwsKmsProvider(options, surroundings)
