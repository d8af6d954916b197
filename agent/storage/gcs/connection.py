"""One client of one bucket: how requests are made, paced, named and translated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from agent.errors import ConfigError, PermissionDenied
from agent.storage.answers import CredentialsExpired
from agent.storage.cloud import CloudConnection
from agent.storage.gcs.credentials import CredentialChain
from agent.storage.gcs.errors import VENDOR_ERRORS, judged, translated
from agent.storage.http import new_session
from agent.storage.precedence import Choice
from agent.storage.surroundings import Surroundings
from agent.version import VERSION
from agent.wire.storage_gcs import GcsSettings

GOOGLE: Final = "https://storage.googleapis.com"
TOKEN_IS_NEW_S: Final = 60.0
"""A token that is refused so soon after it was fetched will not get better by another one."""
_RIGHTS: Final = {
    "write": "storage.objects.create",
    "read": "storage.objects.get",
    "list": "storage.objects.list",
    "delete": "storage.objects.delete",
}
"""What each action takes, for those that it is refused to."""
_ERROR_BYTES: Final = 16 * 1024


class Connection(CloudConnection):
    """Create it with `Connection.open`."""

    def __init__(
        self, settings: GcsSettings, surroundings: Surroundings, stack: AsyncExitStack
    ) -> None:
        super().__init__(f"gs://{settings.bucket}", settings.prefix, surroundings)
        self.settings: GcsSettings = settings
        emulator = surroundings.environment.get("STORAGE_EMULATOR_HOST")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self.endpoint = (settings.endpoint_url or emulator or GOOGLE).rstrip("/")
        self._stack = stack
        self.served_at: str | None = None
        """The `Date` of the last answer."""
        self._session: aiohttp.ClientSession | None = None
        self._chain: CredentialChain | None = None

    @classmethod
    async def open(cls, settings: GcsSettings, surroundings: Surroundings) -> Connection:
        """Prepare everything; the first request is the first word to the server. Raises
        `ConfigError`."""
        stack = AsyncExitStack()
        connection = cls(settings, surroundings, stack)
        try:
            session = await stack.enter_async_context(
                new_session(
                    surroundings,
                    authority=settings.endpoint_ca,
                    skip_verification=settings.insecure_skip_tls_verify,
                )
            )
            connection._session = session
            connection._chain = CredentialChain(settings, surroundings, session)
        except BaseException:
            await stack.aclose()
            raise
        return connection

    @property
    def choice(self) -> Choice:
        """Which link of the credential chain is used."""
        return self._opened()[1].choice

    async def identity(self) -> str:
        """As whom Google sees this agent. Raises errors of `agent.errors`."""
        return await self._opened()[1].identity()

    def _opened(self) -> tuple[aiohttp.ClientSession, CredentialChain]:
        if self._session is None or self._chain is None:
            raise RuntimeError(f"{self.address} is not open")
        return self._session, self._chain

    def objects(self, key: str | None = None, *, upload: bool = False) -> str:
        """The path of the objects of the bucket, or of one."""
        base = f"{'/upload' if upload else ''}/storage/v1/b/{quote(self.settings.bucket)}/o"
        return base if key is None else f"{base}/{quote(self.name(key), safe='')}"

    async def begin(
        self,
        what: tuple[str, str | None],
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        fine: tuple[int, ...] = (),
    ) -> aiohttp.ClientResponse:
        """One request; who gets its answer closes or releases it.

        `what` is the action and the key; `path` begins with `/` and is quoted; `fine` are statuses
        that are no error beside 2xx. Raises errors of `agent.errors`.
        """
        told, right = self.cannot(*what), _RIGHTS.get(what[0], "")
        async with self.pace.turn():
            answer = await self._ask(told, method, path, parameters, headers, data)
            try:
                if answer.status not in fine and not 200 <= answer.status < 300:
                    is_of_bucket = path in (self.objects(), self.objects(upload=True))
                    raise await self._refused(answer, told, right, is_of_bucket)
            except BaseException:
                answer.close()
                raise
        return answer

    @asynccontextmanager
    async def asking(
        self, what: tuple[str, str | None], method: str, path: str, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, as long as its answer is read; see `begin`."""
        answer = await self.begin(what, method, path, **more)
        try:
            yield answer
        finally:
            answer.release()

    async def call(
        self, what: tuple[str, str | None], method: str, path: str, **more: Any
    ) -> dict[str, Any]:
        """One request whose answer is a JSON document, or nothing."""
        async with self.asking(what, method, path, **more) as answer:
            try:
                body = await answer.read()
                found = json.loads(body) if body.strip() else None
            except VENDOR_ERRORS as error:
                raise translated(error, self.cannot(*what)) from error
            except ValueError as error:
                raise ConfigError(
                    f"{self.cannot(*what)}: the server does not speak the JSON API",
                    hint="endpointUrl must be Google's or of an implementation of its JSON API",
                ) from error
        return dict(found or {})

    async def _ask(
        self,
        told: str,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        data: Any,
    ) -> aiohttp.ClientResponse:
        session, chain = self._opened()
        signed = {"User-Agent": f"tidelog/{VERSION}", **(headers or {})}
        if (token := await chain.header()) is not None:
            signed["Authorization"] = token
        query = "&".join(
            f"{name}={quote(value, safe='')}" for name, value in (parameters or {}).items()
        )
        joint = "&" if "?" in path else "?"
        url = URL(self.endpoint + path + (joint + query if query else ""), encoded=True)
        try:
            answer = await session.request(
                method, url, headers=signed, data=data, allow_redirects=False
            )
            self.served_at = answer.headers.get("Date")
            return answer
        except (*VENDOR_ERRORS, ValueError) as error:
            raise translated(error, told) from error

    async def _refused(
        self, answer: aiohttp.ClientResponse, told: str, right: str, is_of_bucket: bool
    ) -> Exception:
        try:
            body = await answer.content.read(_ERROR_BYTES)
        except VENDOR_ERRORS:
            body = b""  # the status says enough
        headers = {name.lower(): value for name, value in answer.headers.items()}
        found = judged(answer.status, body, headers, told, right, is_of_bucket=is_of_bucket)
        if answer.status == 401 and isinstance(found, PermissionDenied):
            _, chain = self._opened()
            if chain.forget(older_than_s=TOKEN_IS_NEW_S):
                return CredentialsExpired(str(found))
        return found

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._stack.aclose()


def path_of(url: str) -> str:
    """Path and query of a URL that the server made: it is asked at the endpoint of the settings,
    which may be another name of the same server."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")
