"""A range of an object as a stream; what is long is read in several ranges at once, in order.

For every store that serves ranges by request. The first request answers how large the object is.
What it does not deliver follows in segments, as many under way as the settings allow, each held in
memory until it is its turn. What a store does differently is left to it: see `Ranges`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from agent.errors import IntegrityError, Permanent, StorageUnavailable, TidelogError, leaves
from agent.tasks import TaskGroup

BLOCK_BYTES: Final = 1 << 20


class RangeNotSatisfiable(Permanent):
    """The range begins at or behind the end."""


class _Left(Exception):  # no error: how the group learns that nobody reads any more
    """The reader is done."""


@dataclass(frozen=True, slots=True)
class Range:
    """What is wanted of one object."""

    key: str
    offset: int
    length: int | None

    def __post_init__(self) -> None:
        if self.offset < 0 or (self.length is not None and self.length < 0):
            raise ValueError(f"no range of {self.key!r}: offset {self.offset}, {self.length}")


class Body(Protocol):
    """The answer to a request for a range. All raises errors of `agent.errors`."""

    @property
    def total_bytes(self) -> int:
        """The size of the whole object."""

    async def read(self, size_bytes: int) -> bytes:
        """Some of the next bytes, at most so many; empty at the end of the answer."""

    def close(self) -> None:
        """Let go of the connection."""


class Ranges(Protocol):
    """How one store is asked."""

    def cannot(self, action: str, key: str | None) -> str:
        """`cannot read 'a/b' in s3://bucket/prefix`."""

    async def fetch(self, key: str, offset: int, length: int) -> Body:
        """Ask for a range of at least one byte, which may reach behind the end. Raises
        `RangeNotSatisfiable` where it begins there, and `StorageUnavailable` where the store
        answers with another range."""

    async def size_bytes(self, key: str) -> int:
        """The size of an object. Raises `ObjectNotFound`."""


class Reader:
    """Reads ranges of objects of one store, `in_flight` segments at once."""

    def __init__(self, ranges: Ranges, segment_bytes: int, in_flight: int) -> None:
        self._ranges = ranges
        self._segment = segment_bytes
        self._in_flight = in_flight

    @asynccontextmanager
    async def open(self, wanted: Range) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `agent.storage.base.Storage.get`."""
        segment = self._segment
        asked = segment if wanted.length is None else min(segment, wanted.length)
        if asked == 0 or not (body := await self._begin(wanted, asked)):
            await self._check_bounds(wanted)
            yield _nothing()
            return
        try:
            total = body.total_bytes
            end = total if wanted.length is None else wanted.offset + wanted.length
            if end > total:
                raise self._past_end(wanted, total)
            begun = min(wanted.offset + asked, end)
            head = self._stream(body, wanted.key, begun - wanted.offset)
            if begun == end:
                async with aclosing(head):
                    yield head
            else:
                async with self._joined(wanted.key, head, begun, end) as joined:
                    yield joined
        finally:
            body.close()

    async def _begin(self, wanted: Range, asked: int) -> Body | None:
        """The body of the first range; None where it has no byte."""
        try:
            return await self._ranges.fetch(wanted.key, wanted.offset, asked)
        except RangeNotSatisfiable:
            return None

    async def _check_bounds(self, wanted: Range) -> None:
        total = await self._ranges.size_bytes(wanted.key)
        if max(wanted.offset, wanted.offset + (wanted.length or 0)) > total:
            raise self._past_end(wanted, total)

    def _past_end(self, wanted: Range, total: int) -> IntegrityError:
        end = wanted.offset + (wanted.length or 0)
        return IntegrityError(
            f"{self._ranges.cannot('read', wanted.key)}: it has {total} bytes, "
            f"bytes up to {end} were asked for"
        )

    def _cut(self, key: str, left: int) -> StorageUnavailable:
        what = self._ranges.cannot("read", key)
        return StorageUnavailable(f"{what}: the connection ended {left} bytes early")

    async def _stream(self, body: Body, key: str, size: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes of a response."""
        left = size
        while left:
            block = await body.read(min(BLOCK_BYTES, left))
            if not block:
                raise self._cut(key, left)
            left -= len(block)
            yield block

    @asynccontextmanager
    async def _joined(
        self, key: str, head: AsyncGenerator[bytes, None], begun: int, end: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The head and all segments behind it. Tasks that read ahead never outlive the reader,
        and their errors come out of the stream, in turn."""
        try:
            async with TaskGroup() as group:
                async with aclosing(self._ahead(group, key, head, begun, end)) as stream:
                    yield stream
                raise _Left
        except BaseExceptionGroup as ended:
            errors = [error for error in leaves(ended) if not isinstance(error, _Left)]
            if errors:
                raise errors[0] from None

    async def _ahead(
        self,
        group: TaskGroup,
        key: str,
        head: AsyncGenerator[bytes, None],
        begun: int,
        end: int,
    ) -> AsyncGenerator[bytes, None]:
        """One segment more is held than is under way: a late one does not keep the connection
        of those behind it idle."""
        turns = asyncio.Semaphore(self._in_flight)
        starts = iter(range(begun, end, self._segment))
        reading: deque[asyncio.Task[list[bytes] | TidelogError]] = deque()

        def read_on() -> None:
            start = next(starts, None)
            if start is not None:
                wanted = self._segment_at(key, start, min(self._segment, end - start), turns)
                reading.append(group.create_task(wanted))

        async with turns:  # the head is under way, too
            for _ in range(self._in_flight):
                read_on()
            async with aclosing(head):
                async for block in head:
                    yield block
        read_on()  # in place of the head
        while reading:
            found = await reading.popleft()
            if isinstance(found, TidelogError):
                raise found
            read_on()
            found.reverse()
            while found:
                yield found.pop()

    async def _segment_at(
        self, key: str, start: int, length: int, turns: asyncio.Semaphore
    ) -> list[bytes] | TidelogError:
        try:
            async with turns:
                body = await self._ranges.fetch(key, start, length)
                try:
                    return await self._whole(body, key, length)
                finally:
                    body.close()
        except TidelogError as error:
            return error

    async def _whole(self, body: Body, key: str, length: int) -> list[bytes]:
        found: list[bytes] = []  # as they came: joining them would cost more than sending them on
        left = length
        while left and (block := await body.read(left)):
            found.append(block)
            left -= len(block)
        if left:
            raise self._cut(key, left)
        return found


async def _nothing() -> AsyncGenerator[bytes, None]:
    none: tuple[bytes, ...] = ()
    for block in none:
        yield block
