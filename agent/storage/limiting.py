"""Wrapper: how many requests are under way at once, and how many bytes a second.

A request holds its slot while the storage works for it, not while a reader thinks: between two
blocks of a `get` and two entries of a `list` the slot is free, so that a reader who stores or looks
up something in between cannot wait for itself. A `put` holds its slot to the end: its source must
not wait for other calls of the same storage.

When the storage asks for fewer requests (`Throttled`), all new ones wait, not only the refused one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Final, TypeVar

from agent.clock import Clock, SystemClock
from agent.errors import Throttled
from agent.storage.base import ObjectInfo, Storage
from agent.storage.wrapping import WrappingStorage

T = TypeVar("T")

_BURST_S: Final = 0.25
"""How much of an unused rate is saved up."""
_LOOK_AGAIN_S: Final = 0.5
"""A changed rate is noticed within this time."""
_LIST_BATCH: Final = 100


class TokenBucket:
    """Bytes a second, in the order of asking; None is no limit. The rate may change any time.

    A block is let through when nothing is owed and may overdraw the balance, so that a block of any
    size passes; what comes next waits for it.
    """

    def __init__(self, bytes_per_s: float | None, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._turn = asyncio.Lock()
        self._balance = 0.0
        self._at = self._clock.monotonic()
        self._bytes_per_s: float | None = None
        self.set_rate(bytes_per_s)

    def set_rate(self, bytes_per_s: float | None) -> None:
        """Change the rate, also for those who wait. Raises `ValueError` unless positive."""
        if bytes_per_s is not None and bytes_per_s <= 0:
            raise ValueError(f"a rate of {bytes_per_s} bytes a second lets nothing through")
        self._refill()
        self._bytes_per_s = bytes_per_s
        if bytes_per_s is None:
            self._balance = 0.0

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may pass."""
        if self._bytes_per_s is None:
            return
        async with self._turn:
            while (wait_s := self._wait_s()) > 0:
                await self._clock.sleep(min(wait_s, _LOOK_AGAIN_S))
            self._balance -= size_bytes

    def _wait_s(self) -> float:
        self._refill()
        if self._bytes_per_s is None or self._balance > -1:  # not >= 0: clocks and floats round
            return 0.0
        return -self._balance / self._bytes_per_s

    def _refill(self) -> None:
        now = self._clock.monotonic()
        if self._bytes_per_s is not None:
            gained = (now - self._at) * self._bytes_per_s
            self._balance = min(self._balance + gained, self._bytes_per_s * _BURST_S)
        self._at = now


class LimitingStorage(WrappingStorage):
    """See `agent.storage.base.Storage`; owns and closes the storage it wraps."""

    def __init__(
        self,
        inner: Storage,
        *,
        max_concurrency: int | None = None,
        bucket: TokenBucket | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(inner)
        self._clock = clock or SystemClock()
        self._bucket = bucket or TokenBucket(None, clock=self._clock)
        most = inner.capabilities.max_concurrency
        self._slots = asyncio.Semaphore(min(max_concurrency or most, most))
        self._quiet_until = self._clock.monotonic()

    @property
    def bucket(self) -> TokenBucket:
        """The rate limit, which may be changed while requests are under way."""
        return self._bucket

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        async with self._slots:
            while (wait_s := self._quiet_until - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait_s)
            with self._listening():
                yield

    @contextmanager
    def _listening(self) -> Iterator[None]:
        try:
            yield
        except Throttled as error:
            until = self._clock.monotonic() + error.retry_after_s
            self._quiet_until = max(self._quiet_until, until)
            raise

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Holds a slot to its end; blocks of the source wait for the rate."""
        async with self._slot(), aclosing(self._paced(source)) as paced:
            return await self._inner.put(key, paced, size_hint=size_hint)

    async def _paced(self, source: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for block in source:
            await self._bucket.take(len(block))
            yield block

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opening and each block take a slot for as long as the storage works."""
        async with AsyncExitStack() as stack:
            async with self._slot():
                stream = await stack.enter_async_context(
                    self._inner.get(key, offset=offset, length=length)
                )
            yield await stack.enter_async_context(aclosing(self._metered(stream)))

    async def _metered(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        while True:
            async with self._slot():
                block = await anext(stream, None)
            if block is None:
                return
            await self._bucket.take(len(block))
            yield block

    async def stat(self, key: str) -> ObjectInfo:
        """Takes a slot."""
        async with self._slot():
            return await self._inner.stat(key)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Takes a slot for a hundred entries at a time."""
        entries = self._inner.list(prefix, after=after)
        try:
            while True:
                async with self._slot():
                    batch = await _some(entries)
                for each in batch:
                    yield each
                if len(batch) < _LIST_BATCH:
                    return
        finally:
            if isinstance(entries, AsyncGenerator):
                await entries.aclose()

    async def delete(self, keys: Iterable[str]) -> None:
        """Takes a slot."""
        async with self._slot():
            await self._inner.delete(keys)

    async def verify(self) -> None:
        """Takes a slot."""
        async with self._slot():
            await self._inner.verify()


async def _some(entries: AsyncIterator[ObjectInfo]) -> list[ObjectInfo]:
    batch: list[ObjectInfo] = []
    while len(batch) < _LIST_BATCH and (each := await anext(entries, None)) is not None:
        batch.append(each)
    return batch
