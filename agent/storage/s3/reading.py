"""A range of an object as a stream; what is long is read in several ranges at once, in order.

The first request answers how large the object is. What it does not deliver follows in segments, as
many under way as the settings allow, each held in memory until it is its turn.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import IntegrityError, StorageUnavailable, TidelogError, leaves
from agent.storage.s3.connection import Connection
from agent.storage.s3.errors import VENDOR_ERRORS, RangeNotSatisfiable, translated

BLOCK_BYTES: Final = 1 << 20
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


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


class Reader:
    """Reads ranges of objects of one bucket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._segment = connection.settings.upload_part_size
        self._in_flight = connection.settings.upload_concurrency

    @asynccontextmanager
    async def open(self, wanted: Range) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `agent.storage.base.Storage.get`."""
        segment = self._segment
        asked = segment if wanted.length is None else min(segment, wanted.length)
        if asked == 0 or not (opened := await self._begin(wanted, asked)):
            await self._check_bounds(wanted)
            yield _nothing()
            return
        body, total = opened
        try:
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

    async def _begin(self, wanted: Range, asked: int) -> tuple[Any, int] | None:
        """The body of the first range and the size of the object; None where it has no byte."""
        try:
            answer = await self._get(wanted.key, wanted.offset, asked)
        except RangeNotSatisfiable:
            return None
        found = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if found is not None and int(found[1]) == wanted.offset:
            return answer["Body"], int(found[3])
        if wanted.offset == 0 and answer.get("ContentRange") is None:
            return answer["Body"], int(answer["ContentLength"])  # a server without ranges
        answer["Body"].close()
        raise StorageUnavailable(
            f"{self._connection.cannot('read', wanted.key)}: the server sent another range"
        )

    async def _get(self, key: str, offset: int, length: int) -> dict[str, Any]:
        return await self._connection.call(
            "get_object",
            "read",
            key,
            Key=self._connection.name(key),
            Range=f"bytes={offset}-{offset + length - 1}",
            **self._connection.encryption.customer(),
        )

    async def _check_bounds(self, wanted: Range) -> None:
        answer = await self._connection.call(
            "head_object",
            "read",
            wanted.key,
            Key=self._connection.name(wanted.key),
            **self._connection.encryption.customer(),
        )
        total = int(answer["ContentLength"])
        if max(wanted.offset, wanted.offset + (wanted.length or 0)) > total:
            raise self._past_end(wanted, total)

    def _past_end(self, wanted: Range, total: int) -> IntegrityError:
        end = wanted.offset + (wanted.length or 0)
        return IntegrityError(
            f"{self._connection.cannot('read', wanted.key)}: it has {total} bytes, "
            f"bytes up to {end} were asked for"
        )

    async def _stream(self, body: Any, key: str, size: int) -> AsyncGenerator[bytes, None]:
        """Exactly `size` bytes of a response."""
        left = size
        while left:
            try:
                block = await body.read(min(BLOCK_BYTES, left))
            except (*VENDOR_ERRORS, ValueError) as error:
                raise translated(error, self._connection.cannot("read", key)) from error
            if not block:
                raise StorageUnavailable(
                    f"{self._connection.cannot('read', key)}: the connection ended {left} bytes "
                    "early"
                )
            left -= len(block)
            yield block

    @asynccontextmanager
    async def _joined(
        self, key: str, head: AsyncGenerator[bytes, None], begun: int, end: int
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The head and all segments behind it. Tasks that read ahead never outlive the reader,
        and their errors come out of the stream, in turn."""
        try:
            async with asyncio.TaskGroup() as group:
                async with aclosing(self._ahead(group, key, head, begun, end)) as stream:
                    yield stream
                raise _Left
        except BaseExceptionGroup as ended:
            errors = [error for error in leaves(ended) if not isinstance(error, _Left)]
            if errors:
                raise errors[0] from None

    async def _ahead(
        self,
        group: asyncio.TaskGroup,
        key: str,
        head: AsyncGenerator[bytes, None],
        begun: int,
        end: int,
    ) -> AsyncGenerator[bytes, None]:
        starts = iter(range(begun, end, self._segment))
        reading: list[asyncio.Task[list[bytes] | TidelogError]] = []

        def read_on() -> None:
            start = next(starts, None)
            if start is not None:
                length = min(self._segment, end - start)
                reading.append(group.create_task(self._segment_at(key, start, length)))

        for _ in range(max(1, self._in_flight - 1)):
            read_on()
        async with aclosing(head):
            async for block in head:
                yield block
        read_on()  # in place of the head
        while reading:
            found = await reading.pop(0)
            if isinstance(found, TidelogError):
                raise found
            read_on()
            found.reverse()
            while found:
                yield found.pop()

    async def _segment_at(self, key: str, start: int, length: int) -> list[bytes] | TidelogError:
        try:
            answer = await self._get(key, start, length)
            try:
                return await self._whole(answer["Body"], key, length)
            finally:
                answer["Body"].close()
        except TidelogError as error:
            return error

    async def _whole(self, body: Any, key: str, length: int) -> list[bytes]:
        found: list[bytes] = []  # as they came: joining them would cost more than sending them on
        left = length
        try:
            while left and (block := await body.read(BLOCK_BYTES)):
                found.append(block)
                left -= len(block)
        except (*VENDOR_ERRORS, ValueError) as error:
            raise translated(error, self._connection.cannot("read", key)) from error
        if left:
            raise StorageUnavailable(
                f"{self._connection.cannot('read', key)}: the connection ended {left} bytes early"
            )
        return found


async def _nothing() -> AsyncGenerator[bytes, None]:
    none: tuple[bytes, ...] = ()
    for block in none:
        yield block
