"""A proxy in front of a real server: writes down what passes, and lets some of it fail.

    async with Proxy(server.http) as proxy:
        proxy.script(lambda request: Refuse(503, "SlowDown") if … else None)
        proxy.requests[-1].headers["x-amz-server-side-encryption"]

Signatures stay valid: the Host header is passed on as it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from io import BytesIO
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive"})
_PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """One request; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @property
    def operation(self) -> str:
        """`put`, `part`, `create`, `complete`, `abort`, or the method."""
        if self.method == "PUT":
            return "part" if "partNumber" in self.query else "put"
        if self.method == "POST":
            return "create" if "uploads" in self.query else "complete"
        if self.method == "DELETE" and "uploadId" in self.query:
            return "abort"
        return self.method.lower()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer this instead of passing the request on."""

    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """Close the connection: after so many bytes of the answer, or instead of it (`answered`
    False: the request is not passed on; True: it is carried out and the answer is lost)."""

    after: int = 0
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Flip:
    """Pass it on with a changed byte: the last but so many of the body."""

    behind: int = 40


Action = Refuse | Cut | Flip | None


class Proxy:
    """Listens on a port of its own while the context is open."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.rstrip("/")
        self._decide: Callable[[Seen], Action] = lambda request: None
        self.requests: list[Seen] = []
        self.url = ""

    def script(self, decide: Callable[[Seen], Action]) -> None:
        """What happens to each request from now on."""
        self._decide = decide

    def of(self, operation: str) -> list[Seen]:
        """The requests of one operation."""
        return [request for request in self.requests if request.operation == operation]

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
        )
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        await self._client.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = Seen(request.method, request.path, dict(request.query), headers)
        self.requests.append(seen)
        action = self._decide(seen)
        if isinstance(action, Cut) and not action.answered:
            return self._cut(request)
        body = await request.read()
        if isinstance(action, Refuse):
            told = f"<Code>{action.code}</Code><Message>as scripted</Message>"
            text = f"<Error>{told}</Error>" if action.code else ""
            return web.Response(
                status=action.status, text=text, headers=action.headers, content_type="text/xml"
            )
        if isinstance(action, Flip):
            body = _flipped(body, action.behind)
        try:
            async with self.turn(request):
                if (early := await self.check(request, body)) is not None:
                    return early
                return await self._pass_on(request, body, action)
        except ConnectionResetError:
            return self._cut(request)  # whoever asked has left

    async def check(self, request: web.Request, body: bytes) -> web.StreamResponse | None:
        """A front that knows better than the server may answer itself."""
        return None

    async def passed(
        self, request: web.Request, body: bytes, answer: aiohttp.ClientResponse
    ) -> None:
        """A front may remember what was answered."""

    def turn(self, request: web.Request) -> asyncio.Lock:
        """A front may let some requests pass one after the other only."""
        return asyncio.Lock()

    def upstream(self, path: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """A request of the front's own; the path is quoted."""
        return self._client.get(URL(self._upstream + path, encoded=True))

    async def _pass_on(
        self, request: web.Request, body: bytes, action: Action
    ) -> web.StreamResponse:
        passed = {name: value for name, value in request.headers.items() if _passes(name)}
        async with self._client.request(
            request.method,
            URL(self._upstream + _path_of(request.raw_path), encoded=True),
            headers=passed,
            data=BytesIO(body) if body else None,
            skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
        ) as answer:
            await self.passed(request, body, answer)
            return await self._pass_back(request, answer, action)

    async def _pass_back(
        self, request: web.Request, answer: aiohttp.ClientResponse, action: Action
    ) -> web.StreamResponse:
        if isinstance(action, Cut) and action.after == 0:
            await answer.read()
            return self._cut(request)
        back = web.StreamResponse(
            status=answer.status,
            headers={name: value for name, value in answer.headers.items() if _passes(name)},
        )
        if (length := answer.headers.get("Content-Length")) is not None:
            back.content_length = int(length)
        await back.prepare(request)
        left = action.after if isinstance(action, Cut) else None
        async for piece in answer.content.iter_chunked(_PIECE):
            if left is not None and left < len(piece):
                await back.write(piece[:left])
                await asyncio.sleep(0.01)
                return self._cut(request)
            left = None if left is None else left - len(piece)
            await back.write(piece)
        await back.write_eof()
        return back

    @staticmethod
    def _cut(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)


class LateLists(Proxy):
    """Before an S3 server: from `freeze` on each list is what it was when it was last asked for."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._lists: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.is_frozen = False
        self.late = 0
        """How many lists were answered from before."""

    async def check(self, request: web.Request, body: bytes) -> web.StreamResponse | None:
        """Lists are remembered."""
        if request.query.get("list-type") != "2":
            return None
        known = self._lists.get(request.raw_path)
        if known is None or not self.is_frozen:
            passed = {name: value for name, value in request.headers.items() if _passes(name)}
            url = URL(self._upstream + _path_of(request.raw_path), encoded=True)
            async with self._client.get(url, headers=passed) as answer:
                told = {name: value for name, value in answer.headers.items() if _passes(name)}
                known = (await answer.read(), told)
                if answer.status != web.HTTPOk.status_code:
                    return web.Response(body=known[0], headers=told, status=answer.status)
            self._lists[request.raw_path] = known
        else:
            self.late += 1
        return web.Response(body=known[0], headers=known[1])


def _path_of(target: str) -> str:
    """Who was told of a proxy names the host before the path."""
    return target if target.startswith("/") else "/" + target.split("/", 3)[3]


def _flipped(body: bytes, behind: int) -> bytes:
    at = max(0, len(body) - 1 - behind)
    return body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]


def _passes(name: str) -> bool:
    return name.lower() not in _HOP
