"""Chromium without a head, by Playwright; pages are served by a real server with a view of ours."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from agent.clock import SystemClock
from agent.web.model import ReadModel, View
from agent.web.server import Address, WebServer
from tests.support.mongod.ports import free_port

FLAGS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str:
    """The program; skips where there is none, but never in CI."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            raise AssertionError("there is no chromium here: apt-get install chromium")
        pytest.skip("there is no chromium here: apt-get install chromium")
    return found


class FixedModel(ReadModel):
    """Shows what a test puts into it."""

    def __init__(self, view: View) -> None:
        self.shown = view

    async def view(self) -> View:
        """What was put in."""
        return self.shown


@asynccontextmanager
async def served(
    model: ReadModel, token: Callable[[], str | None] = lambda: None, **address: Any
) -> AsyncIterator[str]:
    """The URL of a server that runs for as long as the body."""
    port = free_port()
    server = WebServer(Address("127.0.0.1", port, **address), model, token, SystemClock())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await _listening(port)
        scheme = "https" if address else "http"
        yield f"{scheme}://127.0.0.1:{port}"
        task.cancel()


async def _listening(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError("the server does not listen")
