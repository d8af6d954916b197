"""`aws-kms`: a symmetric key of AWS Key Management Service.

Data keys come from `GenerateDataKey` (the first key of a policy) or are wrapped by `Encrypt`, and
are unwrapped by `Decrypt`, each bound to its encryption context, so that the service's audit log
says for which repository and data key it was asked. Credentials are found as for S3 storages: the
same options, the same chain.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final

from aiobotocore.config import AioConfig
from pydantic import Field

from agent.errors import (
    ConfigError,
    KeyServiceUnavailable,
    KeyUnusable,
    Permanent,
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
from agent.storage.s3.credentials import CredentialChain
from agent.storage.s3.errors import VENDOR_ERRORS, translated
from agent.storage.s3.sessions import new_session
from agent.storage.surroundings import Surroundings
from agent.version import VERSION
from agent.wire.encryption import Kek, KeyDescription, KeyState, kek_id
from agent.wire.secrets import Secret
from agent.wire.storage_s3 import DEFAULT_REGION, S3Credentials

NAME: Final = "aws-kms"
AUTO: Final = "auto"
"""In place of a key: have one made."""
TIMEOUT_S: Final = 10
ATTEMPTS: Final = 4
TAG: Final = "tidelog-repository"

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


class AwsKmsOptions(ProviderOptions):
    """Options of this provider."""

    key_id: str = Field(min_length=1)
    """A key id, an ARN, `alias/NAME`, or `auto`."""
    region: str | None = None
    endpoint_url: str | None = None
    credentials: S3Credentials = S3Credentials()
    insecure_skip_tls_verify: bool = False


class AwsKmsProvider:
    """See the module."""

    def __init__(self, options: Options, surroundings: Surroundings) -> None:
        self._options = parsed(AwsKmsOptions, options, NAME)
        secret = self._options.credentials.secret_access_key
        token = self._options.credentials.session_token
        for given in (secret, token):
            if isinstance(given, Secret) and given.is_literal:
                raise ConfigError(
                    "aws-kms: a secret in clear would be stored",
                    hint="write {file: /PATH}, {env: NAME} or {credential: NAME}",
                )
        self._surroundings = surroundings
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._made: str | None = None

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
                "create_key",
                Description="Wraps the data keys of Tidelog backups",
                KeyUsage="ENCRYPT_DECRYPT",
            )
            self._made = str(answer["KeyMetadata"]["Arn"])
        answer = await self._ask("describe_key", KeyId=self._key)
        arn = str(answer["KeyMetadata"]["Arn"])
        kept = {**self._options.to_options(), "keyId": arn}
        if not kept.get("credentials"):
            kept.pop("credentials", None)
        given = self._options.key_id
        return Kek(
            id=kek_id(NAME, arn, arn),
            provider=NAME,
            key=arn,
            alias=given if given.startswith("alias/") else await self._alias(arn),
            options=kept,
            fingerprint=fingerprint_of(arn.encode()),
            is_service=True,
        )

    async def _alias(self, arn: str) -> str | None:
        try:
            answer = await self._ask("list_aliases", KeyId=arn)
        except TidelogError:
            return None  # a name for people; not everybody may ask for it
        names = [row["AliasName"] for row in answer.get("Aliases", ())]
        return names[0] if names else None

    async def generate(self, context: Context) -> tuple[bytes, bytes]:
        """See `KeyProvider`."""
        answer = await self._ask(
            "generate_data_key",
            KeyId=self._key,
            KeySpec="AES_256",
            EncryptionContext=dict(context),
        )
        return bytes(answer["Plaintext"]), bytes(answer["CiphertextBlob"])

    async def wrap(self, data_key: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        answer = await self._ask(
            "encrypt", KeyId=self._key, Plaintext=data_key, EncryptionContext=dict(context)
        )
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, wrapped: bytes, context: Context) -> bytes:
        """See `KeyProvider`."""
        answer = await self._ask(
            "decrypt", KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=dict(context)
        )
        return bytes(answer["Plaintext"])

    async def describe(self) -> KeyDescription:
        """See `KeyProvider`."""
        try:
            answer = await self._ask("describe_key", KeyId=self._key)
        except KeyUnusable as error:
            if "NotFoundException" in str(error):
                return KeyDescription(state=KeyState.DELETED, key=self._key)
            return KeyDescription(state=KeyState.UNKNOWN, key=self._key, warnings=(str(error),))
        found = answer["KeyMetadata"]
        deletion_at = found.get("DeletionDate")
        return KeyDescription(
            state=_STATES.get(str(found.get("KeyState")), KeyState.UNKNOWN),
            key=str(found["Arn"]),
            deletion_at=deletion_at if isinstance(deletion_at, datetime) else None,
        )

    async def mark(self, repository_id: str) -> str | None:
        """See `KeyProvider`."""
        try:
            await self._ask(
                "tag_resource", KeyId=self._key, Tags=[{"TagKey": TAG, "TagValue": repository_id}]
            )
        except TidelogError as error:
            return f"the key could not be tagged as in use: {error}"
        return None

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
            options = self._options
            environment = self._surroundings.environment
            region = (
                options.region
                or _region_of(options.key_id)
                or environment.get("AWS_REGION")
                or environment.get("AWS_DEFAULT_REGION")
                or DEFAULT_REGION
            )
            verify = False if options.insecure_skip_tls_verify else None
            chain = CredentialChain(
                options.credentials, self._surroundings, region=region, verify=verify
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
