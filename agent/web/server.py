"""The HTTP server of an agent: routes, limits, and an address that may come and go.

    /                 the page                       /metrics    Prometheus
    /api/overview     the same as JSON               /healthz    liveness; ?ready as /readyz
    /assets/…         its style and script           /readyz     readiness, with reasons

A port that is taken, a certificate that is not there, a handler that fails: all of that is said in
the log and tried again, and nothing but the answers depends on it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import structlog
from aiohttp import web

from agent.clock import Clock
from agent.errors import ConfigError
from agent.version import VERSION
from agent.web.access import Access
from agent.web.health import readiness
from agent.web.metrics import CONTENT_TYPE, exposition
from agent.web.model import ReadModel
from agent.web.overview_json import overview_json
from agent.web.page import render_main, render_page

RETRY_S: Final = 30.0
MAX_CONNECTIONS: Final = 64
ANSWER_WITHIN_S: Final = 20.0
KEEP_ALIVE_S: Final = 30.0
MAX_HEADER_BYTES: Final = 8190
ASSETS: Final = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and with which certificate."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """For HTTPS. Raises `OSError`."""
        if self.certificate is None or self.key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


class WebServer:
    """Serves a read model; `run` is for the agent's task group."""

    def __init__(
        self, address: Address, model: ReadModel, token: Callable[[], str | None], clock: Clock
    ) -> None:
        self._address = address
        self._model = model
        self._access = Access(token)
        self._clock = clock
        self._assets = {
            name: files("agent.web").joinpath("assets", name).read_bytes() for name in ASSETS
        }

    async def run(self) -> None:
        """Listen, for ever; what keeps it from listening is said and tried again."""
        while True:
            try:
                await self._serve()
            except (OSError, ConfigError) as error:
                where = f"{self._address.host}:{self._address.port}"
                log.error("http.not_listening", address=where, error=str(error))
            await self._clock.sleep(RETRY_S)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            runner = web.AppRunner(
                self._application(),
                access_log=None,
                handle_signals=False,
                keepalive_timeout=KEEP_ALIVE_S,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                shutdown_timeout=1.0,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            inner = runner.server
            assert inner is not None

            def accept() -> asyncio.BaseProtocol:
                return inner() if len(inner.connections) < MAX_CONNECTIONS else _Refusing()

            context = await asyncio.to_thread(self._address.context)
            server = await loop.create_server(
                accept, self._address.host, self._address.port, ssl=context
            )
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            scheme = "http" if context is None else "https"
            log.info("http.listening", address=f"{scheme}://{self._address.host}:{port}")
            while server.is_serving():
                await self._clock.sleep(RETRY_S)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._access.middleware], client_max_size=1024)
        routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "/": self._page,
            "/api/overview": self._overview,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._ready,
            "/assets/{name}": self._asset,
        }
        for path, handler in routes.items():
            application.router.add_get(path, _in_time(handler))
        return application

    async def _page(self, request: web.Request) -> web.StreamResponse:
        view = await self._model.view()
        text = await asyncio.to_thread(render_page, view)
        return web.Response(text=text, content_type="text/html")

    async def _overview(self, request: web.Request) -> web.StreamResponse:
        view = await self._model.view()
        found: dict[str, Any] = overview_json(view)
        if "main" in request.query:  # for the page's own script: what it puts in place
            found = {"error": view.error, "main": await asyncio.to_thread(render_main, view)}
        return web.json_response(found)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        body = exposition(await self._model.view())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.StreamResponse:
        if "ready" in request.query:
            return await self._ready(request)
        return web.json_response({"status": "ok", "version": VERSION})

    async def _ready(self, request: web.Request) -> web.StreamResponse:
        found = readiness(await self._model.view())
        status = 200 if found["ready"] else 503
        if not self._access.may_see_all(request):
            found = {"ready": found["ready"]}
        return web.json_response(found, status=status)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in self._assets:
            raise web.HTTPNotFound
        return web.Response(body=self._assets[name], content_type=ASSETS[name], charset="utf-8")


class _Refusing(asyncio.Protocol):
    """Hangs up: there are enough connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _in_time(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await handler(request)
        except TimeoutError:
            return web.Response(status=503, text="no answer could be made in time\n")

    return answer
