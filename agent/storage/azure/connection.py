"""One client of one container: how requests are made, paced, named and translated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob.aio import ContainerClient

from agent.errors import ConfigError, PermissionDenied
from agent.storage.answers import CredentialsExpired
from agent.storage.azure.credentials import (
    TOKEN_SCOPE,
    CredentialChain,
    Login,
    identity_in,
    sas_fact,
)
from agent.storage.azure.errors import VENDOR_ERRORS, translated
from agent.storage.bodies import RequestBody
from agent.storage.cloud import CloudConnection
from agent.storage.describing import skew_s
from agent.storage.http import new_session
from agent.storage.precedence import Choice
from agent.storage.surroundings import Surroundings
from agent.version import VERSION
from agent.wire.storage_azure import AzureSettings

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 10
READ_TIMEOUT_S: Final = 60
LARGE_BYTES: Final = 1 << 20
MAX_PUT_BYTES: Final = 4 << 30
"""What is one part is one request: the SDK is never to cut it anew."""
_RIGHTS: Final = {
    "write": "Microsoft.Storage/…/blobs/write, or rcw in the SAS token",
    "read": "Microsoft.Storage/…/blobs/read, or r in the SAS token",
    "list": "Microsoft.Storage/…/blobs/read, or l in the SAS token",
    "delete": "Microsoft.Storage/…/blobs/delete, or d in the SAS token",
}
"""What each action takes, for those that it is refused to."""
TOKEN_IS_NEW_S: Final = 60.0
"""A token that is refused so soon after it was fetched will not get better by another one."""


class Connection(CloudConnection):
    """Create it with `Connection.open`."""

    def __init__(
        self, settings: AzureSettings, surroundings: Surroundings, stack: AsyncExitStack
    ) -> None:
        self._chain = CredentialChain(settings, surroundings)
        self._login = self._chain.login()
        super().__init__(
            f"azure://{self._login.account}/{settings.container}", settings.prefix, surroundings
        )
        self.settings: AzureSettings = settings
        self._stack = stack
        self._transport: Any = None
        self._client: ContainerClient | None = None
        self._identity: Any = None
        self._identity_since = 0.0
        self._served_at: datetime | None = None
        self.skew_s: float | None = None
        """The host's clock minus the server's, as of its last answer."""

    @classmethod
    async def open(cls, settings: AzureSettings, surroundings: Surroundings) -> Connection:
        """Prepare everything; the first request is the first word to the server. Raises
        `ConfigError`."""
        stack = AsyncExitStack()
        try:
            connection = cls(settings, surroundings, stack)
            session = await stack.enter_async_context(
                new_session(
                    surroundings,
                    authority=settings.endpoint_ca,
                    skip_verification=settings.insecure_skip_tls_verify,
                )
            )
            connection._transport = _Transport(
                session=session,
                session_owner=False,
                connection_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
            )
            connection._container()
        except BaseException:
            await stack.aclose()
            raise
        return connection

    @property
    def choice(self) -> Choice:
        """Which link of the credential chain is used."""
        return self._chain.choice

    @property
    def endpoint(self) -> str:
        """The URL of the account."""
        return self._login.endpoint

    async def identity(self) -> str | None:
        """As whom Azure sees this agent. Raises errors of `agent.errors`."""
        if self._login.secret is None:
            return await self.call("ask for a token for", None, self._who)
        return self._login.in_words

    async def _who(self, _: ContainerClient) -> str:
        token = await self._identity.get_token(TOKEN_SCOPE)
        return identity_in(token.token)

    @property
    def sas_left_s(self) -> float | None:
        """For how many seconds the SAS token is good, by the server's clock; None: there is none,
        or nothing was asked of the server yet."""
        expiry = sas_fact(self._login.sas, "se") if self._login.sas else None
        if expiry is None or self._served_at is None:
            return None
        try:
            ends = datetime.fromisoformat(expiry)
        except ValueError:
            return None
        ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
        return (ends - self._served_at).total_seconds()

    async def call(
        self,
        action: str,
        key: str | None,
        request: Callable[[ContainerClient], Awaitable[T]],
    ) -> T:
        """One request. Raises errors of `agent.errors`."""
        async with self.pace.turn():
            try:
                return await request(self._container())
            except (*VENDOR_ERRORS, ValueError) as error:
                found = translated(error, self.cannot(action, key), _RIGHTS.get(action, ""))
                if isinstance(found, PermissionDenied):
                    await self._look_again(error, found)
                raise found from error

    def _container(self) -> ContainerClient:
        login = self._chain.login()
        if self._client is None or login != self._login:
            self._login = login
            self._client = self._new_client(login)
        return self._client

    def _new_client(self, login: Login) -> ContainerClient:
        secret = login.secret
        if secret is None:
            if self._identity is None:
                self._identity = self._chain.identity(self._transport)
                self._identity_since = self.surroundings.clock.monotonic()
            secret = self._identity
        part_bytes = self.settings.upload_part_size
        try:
            return ContainerClient(
                login.endpoint,
                self.settings.container,
                credential=secret,
                transport=self._transport,
                retry_total=0,
                user_agent=f"tidelog/{VERSION}",
                max_single_put_size=MAX_PUT_BYTES,
                max_single_get_size=max(part_bytes, 1 << 20),
                raw_response_hook=self._answered,
            )
        except ValueError as error:
            raise ConfigError(f"cannot open {self.address}: {error}") from error

    def _answered(self, response: Any) -> None:
        date = response.http_response.headers.get("Date")
        if date:
            self._served_at = parsedate_to_datetime(date)
            self.skew_s = skew_s(date)

    async def _look_again(self, error: BaseException, found: PermissionDenied) -> None:
        """Refused: are there other credentials by now? Raises `CredentialsExpired` if so."""
        status = getattr(error, "status_code", None)
        if self._login.secret is not None:
            if self._chain.may_change and self._chain.login() != self._login:
                raise CredentialsExpired(str(found)) from error
            left_s = self.sas_left_s
            if left_s is not None and left_s <= 0:
                raise PermissionDenied(
                    f"{found}: the SAS token has expired",
                    hint="give a new one; as {file: …} it is used as soon as the file changes",
                ) from error
        elif status == 401 and self._identity is not None:
            now = self.surroundings.clock.monotonic()
            if now - self._identity_since > TOKEN_IS_NEW_S:
                identity, self._identity, self._client = self._identity, None, None
                await identity.close()
                raise CredentialsExpired(str(found)) from error

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        if self._identity is not None:
            identity, self._identity = self._identity, None
            await identity.close()
        await self._stack.aclose()


class _Transport(AioHttpTransport):  # type: ignore[misc]
    """The SDK's own one, sending large bodies piece by piece."""

    def _get_request_data(self, request: Any) -> Any:
        data = super()._get_request_data(request)
        return RequestBody(data) if isinstance(data, bytes) and len(data) > LARGE_BYTES else data

    async def __aexit__(self, *_: Any) -> None:
        """Shared by clients and identities, so none of them closes it."""
