"""What this agent has seen last of the control database, shared by all that runs in it.

The runner reads once for all of them and puts it here; the lead and the worker wait for the next
look instead of asking the database themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from agent.wire.leases import Lease
from agent.wire.operations import Operation


class Board:
    """The latest look: operations that are not over, and leases that are held."""

    def __init__(self) -> None:
        self.operations: dict[str, Operation] = {}
        self.held: Mapping[str, Lease] = {}
        self.look = 0
        """The number of the latest look."""
        self.asked = 0
        """The number of the look that was begun last. What somebody learnt by himself before he
        read this number, all looks with a higher one have seen, too."""
        self._next = asyncio.Event()

    def ask(self) -> None:
        """A look begins: nothing of it was read yet."""
        self.asked += 1

    def publish(self, operations: Iterable[Operation], held: Mapping[str, Lease]) -> None:
        """Put up the look that was begun and tell everybody who waits."""
        self.operations = {operation.id: operation for operation in operations}
        self.held = held
        self.look = self.asked
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, look: int, *, at_most_s: float) -> None:
        """Wait for a look later than that one, or until the time is up."""
        if self.look > look:
            return
        try:
            async with asyncio.timeout(at_most_s):
                await self._next.wait()
        except TimeoutError:
            return
