"""Wake-ups: a capped collection and a tailable-await cursor on its end.

A wake-up says "look again", nothing more; the operations are the truth. So one that is lost costs
a few seconds (agents poll too), and a repeated one costs a query.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import structlog
from pymongo import CursorType
from pymongo.errors import PyMongoError

from agent.clock import Clock, SystemClock, jittered
from agent.errors import TidelogError
from agent.store.connection import Control, translated
from agent.wire.collections import COMMANDS
from agent.wire.storage_reports import StorageCheckRequest

AWAIT_S: Final = 8.0
"""How long the server holds a read of the end: less than a socket waits for an answer."""
FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0

log = structlog.stdlib.get_logger()


class CommandQueue:
    """Wakes agents, and is how they wait."""

    def __init__(self, control: Control, clock: Clock | None = None) -> None:
        self._collection = control.loose(COMMANDS)
        self._clock = clock or SystemClock()

    async def wake(self, op_id: str | None = None) -> None:
        """Make every agent look again. Best effort: whoever misses it polls."""
        try:
            with translated("waking the agents"):
                await self._collection.insert_one({"op_id": op_id})
        except TidelogError as error:
            log.debug("commands.wake_failed", error=str(error))

    async def ask(self, request: StorageCheckRequest) -> None:
        """Ask every agent to try a storage. Raises `StoreUnavailable`."""
        with translated("asking the agents"):
            await self._collection.insert_one({"op_id": None, "check": request.to_document()})

    async def watch(self) -> AsyncIterator[dict[str, Any] | None]:
        """Each wake-up from now on, and `None` after each break, when some may have been missed.
        Never ends and never raises: trouble is waited out with a growing pause."""
        pause_s = FIRST_PAUSE_S
        while True:
            yield None
            try:
                async with contextlib.aclosing(self._tail()) as found:
                    async for command in found:
                        pause_s = FIRST_PAUSE_S
                        yield command
            except TidelogError as error:
                log.debug("commands.watch_broken", error=str(error), pause_s=pause_s)
            await self._clock.sleep(jittered(pause_s))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _tail(self) -> AsyncGenerator[dict[str, Any], None]:
        """Ends when the cursor dies: the collection is new and empty, or the primary changed."""
        with translated("watching for commands"):
            # From the beginning: it is small, and its order is the server's, which no field tells.
            cursor = self._collection.find({}, cursor_type=CursorType.TAILABLE_AWAIT)
            cursor.max_await_time_ms(int(AWAIT_S * 1000))
            try:
                while cursor.delegate.alive:
                    async for command in cursor:
                        yield command
            finally:
                # Also ends the read that may still wait on the server.
                with contextlib.suppress(PyMongoError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await cursor.close()
