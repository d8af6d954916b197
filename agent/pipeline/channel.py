"""A bounded channel between tasks of one group: producers put, consumers iterate, one close ends.

Failure needs no channel of its own: in a task group the failing side cancels the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """At most `capacity` items wait in it."""

    def __init__(self, capacity: int) -> None:
        self._items: asyncio.Queue[T | None] = asyncio.Queue(maxsize=capacity)

    async def put(self, item: T) -> None:
        """Hand an item over; waits while the channel is full."""
        await self._items.put(item)

    async def close(self) -> None:
        """No more items: every consumer ends once the rest is drained. Call it once."""
        await self._items.put(None)

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._items.get()) is not None:
            yield item
        await self._items.put(None)
