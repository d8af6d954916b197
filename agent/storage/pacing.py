"""How many requests a driver has under way, fewer when the storage asks for fewer.

`Throttled` (503 SlowDown, 429) halves the number and holds all requests of the driver back for the
time asked for; each success gives a little back. So a storm costs waiting, not more requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from agent.clock import Clock
from agent.errors import Throttled

HALVE_EVERY_S: Final = 0.5
"""Requests sent together are refused together: that is one reason to slow down, not ten."""


class Pace:
    """At most `most` requests at once, adapted to what the storage can take."""

    def __init__(self, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._allowed = float(most)
        self._under_way = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._quiet_until = float("-inf")
        self._halved_at = float("-inf")

    @property
    def allowed(self) -> int:
        """How many requests may be under way now."""
        return max(1, int(self._allowed))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Around one request."""
        await self._begin()
        try:
            yield
            self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)
        except Throttled as error:
            self._slow_down(error.retry_after_s)
            raise
        finally:
            self._under_way -= 1
            self._wake()

    async def _begin(self) -> None:
        while True:
            quiet_s = self._quiet_until - self._clock.monotonic()
            if quiet_s > 0:
                await self._clock.sleep(quiet_s)
            elif self._under_way < self.allowed:
                self._under_way += 1
                return
            else:
                await self._wait()

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._wake()  # the turn that was given to it goes to the next
            raise

    def _wake(self) -> None:
        free = self.allowed - self._under_way
        while self._waiting and free > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                free -= 1

    def _slow_down(self, retry_after_s: float) -> None:
        now = self._clock.monotonic()
        self._quiet_until = max(self._quiet_until, now + retry_after_s)
        if now - self._halved_at >= HALVE_EVERY_S:
            self._halved_at = now
            self._allowed = max(1.0, self._allowed / 2)
