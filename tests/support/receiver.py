"""A receiver of webhooks on loopback: it writes down what comes, and answers as it is told to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        """Of the notice."""
        return self.headers["webhook-id"]

    @property
    def value(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def is_signed_with(self, key: bytes) -> bool:
        """Checked as the documentation tells receivers to."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return hmac.compare_digest(f"v1,{mac}", self.headers.get("webhook-signature", ""))


@dataclass
class Receiver:
    """What came, and what is answered: the statuses in order, then 204."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    answer_headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0

    def of(self, event: str) -> list[Received]:
        """Those of one occasion."""
        return [one for one in self.received if one.value.get("type") == f"tidelog.{event}"]

    async def answer(self, request: web.Request) -> web.Response:
        """Takes any request."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, await request.read()))
        await asyncio.sleep(self.delay_s)
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers=self.answer_headers)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver in this event loop."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        receiver.url = f"http://127.0.0.1:{port}/hook"
        yield receiver
    finally:
        await runner.cleanup()


@contextmanager
def receiving_beside() -> Iterator[Receiver]:
    """A receiver in a thread of its own, for tests that have no event loop."""
    ready, over = threading.Event(), asyncio.Event()
    found: list[tuple[Receiver, asyncio.AbstractEventLoop]] = []

    async def serve() -> None:
        async with receiving() as receiver:
            found.append((receiver, asyncio.get_running_loop()))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="receiver")
    thread.start()
    assert ready.wait(20)
    receiver, loop = found[0]
    try:
        yield receiver
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
