"""One client of one bucket: how requests are made, paced, named and translated."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from alibabacloud_oss_v2.aio import AsyncClient
from alibabacloud_oss_v2.aio.transport import AioHttpClient
from alibabacloud_oss_v2.config import Config
from alibabacloud_oss_v2.types import Credentials, CredentialsProvider, OperationInput

from agent.errors import ConfigError, PermissionDenied, TidelogError
from agent.storage.aliyun.credentials import CredentialChain, Signer
from agent.storage.aliyun.rpc import Keys
from agent.storage.answers import CredentialsExpired
from agent.storage.cloud import CloudConnection
from agent.storage.oss.errors import VENDOR_ERRORS, translated
from agent.storage.precedence import Choice
from agent.storage.surroundings import Surroundings
from agent.version import VERSION
from agent.wire.storage_oss import OssSettings

READ_TIMEOUT_S: Final = 60.0
_RIGHTS: Final = {
    "write": "oss:PutObject",
    "read": "oss:GetObject",
    "list": "oss:ListObjects",
    "delete": "oss:DeleteObject",
}
_REGION_IN_ENDPOINT: Final = re.compile(r"oss-([a-z0-9-]+?)(-internal)?\.aliyuncs\.com")


class _Handed(CredentialsProvider):  # type: ignore[misc]
    """Hands the library the keys that were fetched right before it signs."""

    def __init__(self) -> None:
        self.keys = Keys("", "")

    def get_credentials(self) -> Credentials:
        return Credentials(*self.keys)


class Connection(CloudConnection):
    """Create it with `Connection.open`."""

    def __init__(
        self,
        settings: OssSettings,
        surroundings: Surroundings,
        region: str,
        tls: ssl.SSLContext | bool,
    ) -> None:
        super().__init__(f"oss://{settings.bucket}", settings.prefix, surroundings)
        self.settings: OssSettings = settings
        self.region = region
        self._chain = CredentialChain(settings.credentials, surroundings, region=region, tls=tls)
        self.signer: Signer = self._chain.signer()
        # No limit of connections but `Pace`: a stream that waits for its reader holds one, and a
        # reader that stores something between two blocks must get another.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls), trust_env=True
        )
        self._handed = _Handed()
        self._client: Any = AsyncClient(self._config())

    @classmethod
    async def open(cls, settings: OssSettings, surroundings: Surroundings) -> Connection:
        """Prepare everything; the first request is the first word to the server. Raises
        `ConfigError`."""
        return cls(
            settings, surroundings, _region(settings, surroundings), _tls(settings, surroundings)
        )

    def _config(self) -> Config:
        settings = self.settings
        endpoint = self.endpoint
        wanted = settings.force_path_style
        return Config(
            region=self.region,
            endpoint=endpoint,
            signature_version="v4",
            credentials_provider=self._handed,
            retry_max_attempts=1,
            http_client=AioHttpClient(
                session=self._session,
                connect_timeout=settings.connect_timeout,
                readwrite_timeout=READ_TIMEOUT_S,
            ),
            use_path_style=_is_bare(endpoint) if wanted == "auto" else wanted,
            # Checksums are ours: the library would compute them on the event loop.
            disable_upload_crc64_check=True,
            disable_download_crc64_check=True,
            user_agent=f"tidelog/{VERSION}",
        )

    @property
    def choice(self) -> Choice:
        """Which link of the credential chain is used."""
        return self.signer.choice

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return self.settings.endpoint_url or f"https://oss-{self.region}.aliyuncs.com"

    async def identity(self) -> str | None:
        """As whom STS knows the keys; where there is no STS, the id of the access key. Raises
        errors of `agent.errors`."""
        keys = await self.signer.keys()
        try:
            return await self._chain.whoami(keys)
        except TidelogError:
            return f"access key {keys.access_key}"

    async def call(
        self,
        method: str,
        action: str,
        key: str | None = None,
        *,
        name: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        is_stream: bool = False,
    ) -> Any:
        """One request to the bucket, or to the object `name` in it; answers the library's output.
        `action` and `key` are for people. Raises errors of `agent.errors`."""
        asked = OperationInput(
            op_name=action,
            method=method,
            headers=dict(headers or {}),
            parameters=dict(query or {}),
            body=body,
            bucket=self.settings.bucket,
            key=name,
            op_metadata={"response-stream": True} if is_stream else None,
        )
        async with self.pace.turn():
            keys = await self.signer.keys()
            self._handed.keys = keys  # the library signs before it waits for anything
            try:
                return await self._client.invoke_operation(asked)
            except (*VENDOR_ERRORS, ValueError) as error:
                right = _right(method, action, query or {})
                found = translated(error, self.cannot(action, key), right)
                if isinstance(found, CredentialsExpired) and not self.signer.forget(keys):
                    found = PermissionDenied(
                        str(found), hint="give new credentials: the security token has expired"
                    )
                raise found from error

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._session.close()


def _right(method: str, action: str, query: Mapping[str, str]) -> str:
    """The action of RAM that a request takes, for those that it is refused to."""
    if method == "HEAD":
        return "oss:GetObject"
    if method == "DELETE" and "uploadId" in query:
        return "oss:AbortMultipartUpload"
    if method == "GET" and "uploads" in query:
        return "oss:ListMultipartUploads"
    return _RIGHTS.get(action, "")


def _region(settings: OssSettings, surroundings: Surroundings) -> str:
    """A request is signed for a region; where none is named, the endpoint names it."""
    around = surroundings.environment
    found = _REGION_IN_ENDPOINT.search(settings.endpoint_url or "")
    region = (
        settings.region
        or (found[1] if found else None)
        or around.get("OSS_REGION")
        or around.get("ALIBABA_CLOUD_REGION_ID")
    )
    if not region:
        raise ConfigError(
            f"the region of the bucket {settings.bucket!r} is not known",
            hint="set storage.oss.region, such as eu-central-1",
        )
    return region.removeprefix("oss-")


def _tls(settings: OssSettings, surroundings: Surroundings) -> ssl.SSLContext | bool:
    if settings.insecure_skip_tls_verify:
        return False
    if settings.endpoint_ca is None:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cadata=surroundings.secrets.text(settings.endpoint_ca))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError("endpointCA holds no PEM certificates") from error
    return context


def _is_bare(endpoint: str) -> bool:
    """Whether no bucket can be put before the host: an address, or a name without a dot."""
    host = urlsplit(endpoint).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host
    return True
