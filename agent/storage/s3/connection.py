"""One client of one bucket: how requests are made, paced, named and translated."""

from __future__ import annotations

import ssl
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from agent.errors import ConfigError, Permanent, PermissionDenied, TidelogError
from agent.storage.answers import CredentialsExpired
from agent.storage.cloud import CloudConnection
from agent.storage.precedence import Choice
from agent.storage.s3.credentials import CredentialChain, Signer
from agent.storage.s3.encryption import Encryption
from agent.storage.s3.errors import VENDOR_ERRORS, translated
from agent.storage.s3.sessions import new_session
from agent.storage.surroundings import Surroundings
from agent.version import VERSION
from agent.wire.storage_s3 import DEFAULT_REGION, S3Settings

CONNECT_TIMEOUT_S: Final = 10
READ_TIMEOUT_S: Final = 60
POOL: Final = 4096
"""Not the limit of requests, which `Pace` keeps: a stream that waits for its reader holds a
connection, and a reader that stores something between two blocks must get another."""
_RIGHTS: Final = {
    "put_object": "s3:PutObject",
    "create_multipart_upload": "s3:PutObject",
    "upload_part": "s3:PutObject",
    "complete_multipart_upload": "s3:PutObject",
    "abort_multipart_upload": "s3:AbortMultipartUpload",
    "list_multipart_uploads": "s3:ListBucketMultipartUploads",
    "get_object": "s3:GetObject",
    "head_object": "s3:GetObject",
    "list_objects_v2": "s3:ListBucket",
    "head_bucket": "s3:ListBucket",
    "delete_object": "s3:DeleteObject",
    "delete_objects": "s3:DeleteObject",
}
"""What each operation takes, for those that it is refused to."""
_READING: Final = frozenset({"get_object", "head_object"})
_OTHER_KEY: Final = (
    "serverSideEncryption.sseCustomerKey must be the key that the object was written with: the"
    " server keeps none, and says denied or invalid for another"
)
_SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


class Connection(CloudConnection):
    """Create it with `Connection.open`."""

    def __init__(
        self, settings: S3Settings, surroundings: Surroundings, stack: AsyncExitStack
    ) -> None:
        super().__init__(
            f"s3://{settings.bucket}", settings.prefix, surroundings, settings.max_connections
        )
        self.settings: S3Settings = settings
        self.encryption = Encryption(settings.server_side_encryption, surroundings.secrets)
        self._stack = stack
        self._client: Any = None
        self._signer: Signer | None = None

    @classmethod
    async def open(cls, settings: S3Settings, surroundings: Surroundings) -> Connection:
        """Prepare everything; the first request is the first word to the server. Raises
        `ConfigError`."""
        stack = AsyncExitStack()
        connection = cls(settings, surroundings, stack)
        try:
            await connection._connect()
        except BaseException:
            await stack.aclose()
            raise
        return connection

    @property
    def signer(self) -> Signer:
        """Whom requests are signed for."""
        if self._signer is None:
            raise RuntimeError(f"{self.address} is not open")
        return self._signer

    @property
    def choice(self) -> Choice:
        """Which link of the credential chain is used."""
        return self.signer.choice

    async def _connect(self) -> None:
        settings = self.settings
        if self.encryption.has_customer_key and (settings.endpoint_url or "").startswith("http:"):
            raise ConfigError(
                "sseCustomerKey would be sent in clear to an http:// endpoint",
                hint="use https://, or another way of encryption",
            )
        verify = self._verify()
        region = settings.region or self._environment("AWS_REGION", "AWS_DEFAULT_REGION")
        chain = CredentialChain(
            settings.credentials, self.surroundings, region=region, verify=verify
        )
        self._signer = chain.signer()
        session = new_session(signer=self._signer)
        try:
            self._client = await self._stack.enter_async_context(
                session.create_client(
                    "s3",
                    region_name=region or DEFAULT_REGION,
                    endpoint_url=settings.endpoint_url,
                    verify=verify,
                    config=self._config(),
                )
            )
        except (*VENDOR_ERRORS, ValueError) as error:
            raise translated(error, f"cannot open {self.address}") from error

    def _config(self) -> AioConfig:
        wanted = self.settings.force_path_style
        if wanted == "auto":
            style = "path" if self.settings.endpoint_url else "auto"
        else:
            style = "path" if wanted else "virtual"
        return AioConfig(
            signature_version="s3v4",
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=POOL,
            tcp_keepalive=True,
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": style},
            # Checksums are ours, as headers: botocore's go into trailers, which servers refuse.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra=f"tidelog/{VERSION}",
        )

    def _environment(self, *names: str) -> str | None:
        found = (self.surroundings.environment.get(name) for name in names)
        return next(filter(None, found), None)

    def _verify(self) -> str | bool | None:
        if self.settings.insecure_skip_tls_verify:
            return False
        if self.settings.endpoint_ca is None:
            return None
        pem = self.surroundings.secrets.text(self.settings.endpoint_ca)
        try:
            ssl.create_default_context(cadata=pem)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError("endpointCA holds no PEM certificates") from error
        # The library wants a file. Certificates are public; authorities of the system stay trusted.
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tidelog-ca-"))
        bundle = Path(directory) / "authorities.pem"
        given = self._environment("AWS_CA_BUNDLE", "SSL_CERT_FILE")
        system = next((path for path in (given, *_SYSTEM_BUNDLES) if _exists(path)), None)
        bundle.write_text((Path(system).read_text() + "\n" if system else "") + pem)
        return str(bundle)

    async def call(
        self, operation: str, action: str, key: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """One request. Raises errors of `agent.errors`."""
        async with self.pace.turn():
            try:
                return await self._ask(operation, parameters)
            except (*VENDOR_ERRORS, ValueError) as error:
                found = translated(error, self.cannot(action, key), _RIGHTS.get(operation, ""))
                if isinstance(found, CredentialsExpired) and not self.signer.forget():
                    found = PermissionDenied(
                        str(found), hint="give new credentials: the session token has expired"
                    )
                if self.encryption.has_customer_key and operation in _READING:
                    found = _may_be_the_key(found)
                raise found from error

    async def _ask(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        bucket = self.settings.bucket
        try:
            return dict(await getattr(self._client, operation)(Bucket=bucket, **parameters))
        except ClientError as error:
            # An answer to HEAD has no body to say what is wrong, such as a session that expired.
            if operation != "head_object" or error.response["Error"]["Code"] != "400":
                raise
            found = await self._client.get_object(Bucket=bucket, Range="bytes=0-0", **parameters)
            found["Body"].close()
            raise

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._stack.aclose()


def _may_be_the_key(error: TidelogError) -> TidelogError:
    """A refusal to read with a customer's key: servers say that it is denied or asked wrongly."""
    if type(error) not in (Permanent, PermissionDenied):
        return error
    return type(error)(error.message, hint=_OTHER_KEY)


def _exists(path: str | None) -> bool:
    return path is not None and Path(path).is_file()
