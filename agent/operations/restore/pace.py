"""Not running ahead of the target's secondaries.

Loading and replay write at w:1, and one fast primary could get minutes ahead of its secondaries.
Everything that waits for a majority would then wait for those minutes: the clients of the cluster,
and the renewal of our own lease, which lives in the same replica set. So writers look at the lag
about once a second, and when it exceeds the limit all of them wait until the majority has caught
up.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agent.clock import Clock
from agent.mongo.node import Node
from agent.operations.governor import Governor

LOOK_EVERY_S: Final = 1.0
MAX_LAG_S: Final = 2.0
CATCH_UP_TIMEOUT_S: Final = 600.0


class Pace:
    """Shared by all writers of one restore."""

    def __init__(self, node: Node, clock: Clock, governor: Governor) -> None:
        self._node = node
        self._governor = governor
        self._clock = clock
        self._looked = clock.monotonic()
        self._turn = asyncio.Lock()

    async def keep(self, size_bytes: int = 0) -> None:
        """To be called before each batch of so many bytes; waits while the majority is too far
        behind, and as long as the limit of restores wants."""
        if size_bytes:
            await self._governor.loaded(size_bytes)
        if not self._is_due():
            return
        async with self._turn:
            if not self._is_due():
                return  # another writer looked, and waited, while this one stood in line
            hello = await self._node.hello()
            if hello.last_applied.T - hello.majority.T > MAX_LAG_S:
                await self._node.wait_majority(hello.last_applied, timeout_s=CATCH_UP_TIMEOUT_S)
            self._looked = self._clock.monotonic()

    def _is_due(self) -> bool:
        return self._clock.monotonic() - self._looked >= LOOK_EVERY_S
