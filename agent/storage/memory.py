"""A complete driver in memory, for tests and dry runs: as strict as the strictest storage."""

from __future__ import annotations

import asyncio
import builtins
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Final

from agent.errors import IntegrityError, ObjectExists, ObjectNotFound, StorageFull
from agent.storage.base import Capabilities, ObjectInfo
from agent.storage.keys import check_key, check_prefix
from agent.storage.probe import probe

BLOCK_BYTES: Final = 1024 * 1024
_LIST_BATCH: Final = 1000


class MemoryObjects:
    """What a storage in memory holds; outlives the `MemoryStorage`s opened over it."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.bodies: dict[str, bytes] = {}
        self.keys: builtins.list[str] = []
        """Sorted; code point order is the byte order of UTF-8."""
        self.capacity_bytes = capacity_bytes

    def has_key_below(self, directory: str) -> bool:
        """Whether any key starts with `directory` and a slash."""
        start = bisect_left(self.keys, f"{directory}/")
        return start < len(self.keys) and self.keys[start].startswith(f"{directory}/")

    def used_bytes(self) -> int:
        """Size of all objects."""
        return sum(map(len, self.bodies.values()))


class MemoryStorage:
    """See `agent.storage.base.Storage`. Create it with `MemoryStorage.open`."""

    def __init__(self, objects: MemoryObjects, name: str) -> None:
        self.objects = objects
        self._name = name
        self._is_closed = False

    @classmethod
    async def open(
        cls, objects: MemoryObjects | None = None, *, name: str = "memory"
    ) -> MemoryStorage:
        """Open `objects`, or an empty storage."""
        return cls(MemoryObjects() if objects is None else objects, name)

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        return Capabilities(
            conditional_put=True, strong_list=True, max_object_bytes=2**40, max_concurrency=64
        )

    @property
    def address(self) -> str:
        """`memory://name`."""
        return f"memory://{self._name}"

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Collects the blocks, then shows the object in one step."""
        self._require_open()
        self._refuse_taken(key)
        body = bytearray()
        async for block in source:
            body += block
            self._refuse_full(key, len(body))
        await asyncio.sleep(0)
        self._refuse_taken(key)
        self._refuse_full(key, len(body))
        self.objects.bodies[key] = bytes(body)
        insort(self.objects.keys, key)
        return ObjectInfo(key, len(body))

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Blocks of 1 MiB; a range past the end is refused before the first of them."""
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"no range of {key!r}: offset {offset}, length {length}")
        await asyncio.sleep(0)
        body = self._body(key)
        end = len(body) if length is None else offset + length
        if max(offset, end) > len(body):
            raise IntegrityError(
                f"cannot read {key!r} in {self.address}: it has {len(body)} bytes, "
                f"bytes up to {max(offset, end)} were asked for"
            )
        async with aclosing(_blocks(body, offset, end)) as stream:
            yield stream

    async def stat(self, key: str) -> ObjectInfo:
        """Size of an object."""
        await asyncio.sleep(0)
        return ObjectInfo(key, len(self._body(key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Goes on after the last key yielded, whatever happened to the objects meanwhile."""
        check_prefix(prefix)
        keys = self.objects.keys
        last = after
        for turn in count():
            self._require_open()
            if turn % _LIST_BATCH == 0:
                await asyncio.sleep(0)
            start = bisect_left(keys, prefix)
            if last is not None:
                start = max(start, bisect_right(keys, last))
            if start >= len(keys) or not keys[start].startswith(prefix):
                return
            last = keys[start]
            yield ObjectInfo(last, len(self.objects.bodies[last]))

    async def delete(self, keys: Iterable[str]) -> None:
        """One by one; another task may see some of them gone."""
        for key in keys:
            self._require_open()
            check_key(key)
            await asyncio.sleep(0)
            if self.objects.bodies.pop(key, None) is not None:
                del self.objects.keys[bisect_left(self.objects.keys, key)]

    async def verify(self) -> None:
        """Write, list, read back and delete a probe object."""
        await probe(self)

    async def aclose(self) -> None:
        """Nothing works afterwards; the objects stay."""
        self._is_closed = True

    def _body(self, key: str) -> bytes:
        self._require_open()
        body = self.objects.bodies.get(check_key(key))
        if body is None:
            raise ObjectNotFound(f"cannot read {key!r} in {self.address}: no such object")
        return body

    def _refuse_taken(self, key: str) -> None:
        parts = check_key(key).split("/")
        above = ("/".join(parts[:count]) for count in range(1, len(parts) + 1))
        if any(each in self.objects.bodies for each in above) or self.objects.has_key_below(key):
            raise ObjectExists(
                f"cannot write {key!r} in {self.address}: the key or one above it is taken"
            )

    def _refuse_full(self, key: str, size_bytes: int) -> None:
        capacity = self.objects.capacity_bytes
        if capacity is not None and self.objects.used_bytes() + size_bytes > capacity:
            free = capacity - self.objects.used_bytes()
            raise StorageFull(
                f"cannot write {key!r} in {self.address}: no space left, {free} bytes free"
            )

    def _require_open(self) -> None:
        if self._is_closed:
            raise RuntimeError(f"{self.address} is closed")


async def _blocks(body: bytes, offset: int, end: int) -> AsyncGenerator[bytes, None]:
    for start in range(offset, end, BLOCK_BYTES):
        await asyncio.sleep(0)
        yield body[start : min(start + BLOCK_BYTES, end)]
