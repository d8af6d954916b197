"""Reading one collection whole, in the order in which the server keeps it.

A scan in natural order costs mongod half of what ranges of `_id` cost, which look each document up,
and one cursor is as fast as one core compresses. So while one batch is read the ones before it are
compressed, and while one object fills the one before it is stored:

    cursor ── batch ──► at most AHEAD being compressed ──► frames, in order ──► object being stored

Everything is read at one OpTime, so the objects are one unit: they all cover the whole collection
at that moment, and whoever resumes reads it again from its beginning. That bounds its size, see
`agent.operations.backup.planning`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from agent.archive.framing import Frame
from agent.archive.manifest import ChunkObject
from agent.errors import root_cause
from agent.mongo.raw import CursorReply
from agent.tasks import TaskGroup

AHEAD: Final = 2
"""Batches that are compressed while the next one is read."""


class Stream:
    """Turns the batches of one cursor into objects; use it once."""

    def __init__(
        self,
        compress: Callable[[bytes], Awaitable[Frame]],
        store: Callable[[list[Frame], int], Awaitable[ChunkObject]],
        *,
        object_bytes: int,
    ) -> None:
        self._compress = compress
        self._store = store
        self._object_bytes = object_bytes
        self._room = asyncio.Semaphore(AHEAD)
        self._filling: list[asyncio.Task[Frame]] = []
        self._plain_bytes = 0
        self._documents = 0
        self._storing: asyncio.Task[ChunkObject] | None = None
        self._stored: list[ChunkObject] = []

    async def run(self, batches: AsyncIterator[CursorReply]) -> list[ChunkObject]:
        """Read to the end; the objects, stored, in order. Raises what reading and storing raise,
        one error, and nothing of it goes on then."""
        try:
            async with TaskGroup() as group:
                async for batch in batches:
                    await self._take(batch, group)
                    del batch
                    if self._plain_bytes >= self._object_bytes:
                        await self._send(group)
                await self._send(group)
                await self._settle()
        except BaseExceptionGroup as errors:
            cause = root_cause(errors)
            raise cause from cause.__cause__
        return self._stored

    async def _take(self, batch: CursorReply, group: TaskGroup) -> None:
        if not batch.count:
            return
        await self._room.acquire()
        self._filling.append(group.create_task(self._frame(batch.documents)))
        self._plain_bytes += len(batch.documents)
        self._documents += batch.count

    async def _frame(self, documents: bytes) -> Frame:
        try:
            return await self._compress(documents)
        finally:
            self._room.release()

    async def _send(self, group: TaskGroup) -> None:
        """What has been read becomes an object, once the object before it is durable."""
        await self._settle()
        if self._filling:
            self._storing = group.create_task(self._object(self._filling, self._documents))
        self._filling, self._plain_bytes, self._documents = [], 0, 0

    async def _object(self, filling: list[asyncio.Task[Frame]], documents: int) -> ChunkObject:
        frames = [await frame for frame in filling]
        filling.clear()
        return await self._store(frames, documents)

    async def _settle(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            self._stored.append(await storing)
