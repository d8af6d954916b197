"""A budget of bytes: taken before data is read, given back when it is durable.

This, and not the number of tasks, is what bounds memory. Waiters are served in order, so that a
large request is not starved by small ones; a request larger than the whole budget gets it all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ByteBudget:
    """At most `total_bytes` are out at once."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.free_bytes = total_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, size_bytes: int) -> AsyncIterator[None]:
        """Hold `size_bytes` of the budget inside; waits until they are free."""
        size = await self.acquire(size_bytes)
        try:
            yield
        finally:
            self.release(size)

    async def acquire(self, size_bytes: int) -> int:
        """Take from the budget what another task will give back; how much that is."""
        size = min(size_bytes, self.total_bytes)
        await self._acquire(size)
        return size

    async def _acquire(self, size: int) -> None:
        if not self._waiting and size <= self.free_bytes:
            self.free_bytes -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)
            else:
                self._waiting = deque(w for w in self._waiting if w[1] is not turn)
                self._serve()
            raise

    def release(self, size_bytes: int) -> None:
        """Give back what `acquire` took."""
        self.free_bytes += size_bytes
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free_bytes:
            size, turn = self._waiting.popleft()
            if not turn.cancelled():
                self.free_bytes -= size
                turn.set_result(None)
