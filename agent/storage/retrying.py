"""Wrapper: what is transient is tried again, with growing pauses and within a deadline.

Only `Transient` errors are retried. Reading and listing go on where they were cut. A `put` can be
tried again only if its source can: give it a `Replayable` (or use `put_object`); the stream of any
other source is half read when the attempt fails, so that error is raised as it is. `verify` is
never retried: who asks wants to hear of the first error.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from agent.clock import Clock, SystemClock
from agent.errors import ObjectExists, Throttled, Transient
from agent.storage.base import ObjectInfo, Storage
from agent.storage.sources import Replayable
from agent.storage.wrapping import WrappingStorage

T = TypeVar("T")
DELETE_BATCH: Final = 1000

OnRetry = Callable[[str, str, int, BaseException, float], None]
"""Told of each retry: verb, key, number of the failed attempt, error, pause in seconds."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long; the deadline counts from the first failure.

    A stream or a listing that progressed since has all attempts and all time again.
    """

    max_attempts: int = 5
    """All attempts, the first one included."""
    base_delay_s: float = 0.5
    max_backoff_s: float = 30.0
    deadline_s: float = 300.0

    def pause_s(self, failed_attempts: int, error: BaseException | None) -> float:
        """Half to all of the back-off, and never less than the storage asked for."""
        doubled: float = self.base_delay_s * 2.0 ** min(failed_attempts - 1, 60)
        pause = min(doubled, self.max_backoff_s) * random.uniform(0.5, 1.0)
        return max(pause, error.retry_after_s) if isinstance(error, Throttled) else pause


async def put_object(
    storage: Storage,
    key: str,
    factory: Callable[[], AsyncIterator[bytes]],
    *,
    size_hint: int | None = None,
) -> ObjectInfo:
    """Store what the stream of `factory` yields; each attempt takes a fresh stream."""
    return await storage.put(key, Replayable(factory), size_hint=size_hint)


class Attempts:
    """The attempts at one step of a call; after `progressed` the count starts anew."""

    def __init__(
        self, verb: str, key: str, policy: RetryPolicy, clock: Clock, on_retry: OnRetry
    ) -> None:
        self._verb = verb
        self._key = key
        self._policy = policy
        self._clock = clock
        self._on_retry = on_retry
        self.failed = 0
        self._since = 0.0

    def progressed(self) -> None:
        self.failed = 0

    async def run(self, step: Callable[[], Awaitable[T]]) -> T:
        """What `step` returns, or the error of the last attempt."""
        try:
            return await step()  # nearly always, so the rest costs a stream nothing per block
        except Transient as error:
            first: Transient | None = error

        async def attempt() -> T:
            nonlocal first
            if first is not None:
                error, first = first, None
                raise error
            return await step()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            wait=self._pause_s,
            stop=self._is_over,
            sleep=self._clock.sleep,
            reraise=True,
        )
        return await retrying(attempt)

    def _pause_s(self, state: RetryCallState) -> float:
        if self.failed == 0:
            self._since = self._clock.monotonic()
        self.failed += 1
        return self._policy.pause_s(self.failed, _error_of(state))

    def _is_over(self, state: RetryCallState) -> bool:
        error, pause_s = _error_of(state), state.upcoming_sleep
        spent_s = self._clock.monotonic() - self._since
        if self.failed < self._policy.max_attempts and spent_s + pause_s <= self._policy.deadline_s:
            self._on_retry(self._verb, self._key, self.failed, error, pause_s)
            return False
        if self.failed > 1:
            error.add_note(f"gave up after {self.failed} attempts in {spent_s:.1f} s")
        return True


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome is not None else None
    if error is None:
        raise RuntimeError("tenacity asks about an attempt that did not fail")
    return error


def _ignore(verb: str, key: str, attempt: int, error: BaseException, pause_s: float) -> None:
    """The default `on_retry`."""


class RetryingStorage(WrappingStorage):
    """See `agent.storage.base.Storage`; owns and closes the storage it wraps."""

    def __init__(
        self,
        inner: Storage,
        policy: RetryPolicy | None = None,
        *,
        clock: Clock | None = None,
        on_retry: OnRetry = _ignore,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._clock = clock or SystemClock()
        self._on_retry = on_retry

    def _attempts(self, verb: str, key: str) -> Attempts:
        return Attempts(verb, key, self._policy, self._clock, self._on_retry)

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Retried if the source is a `Replayable`, and the driver does not retry by itself.

        When the answer to an attempt was lost the object may be there all the same, and the next
        attempt raises `ObjectExists`: then it is compared with the source and counts if equal.
        """
        if not isinstance(source, Replayable) or self.capabilities.retries_put:
            return await self._inner.put(key, source, size_hint=size_hint)
        attempts = self._attempts("put", key)

        async def step() -> ObjectInfo:
            try:
                async with _closing(source.again()) as stream:
                    return await self._inner.put(key, stream, size_hint=size_hint)
            except ObjectExists:
                if attempts.failed == 0:
                    raise
                stored = await self._inner.stat(key)
                if not await self._holds(stored, source):
                    raise
                return stored

        return await attempts.run(step)

    async def _holds(self, stored: ObjectInfo, source: Replayable) -> bool:
        wanted, found = hashlib.sha256(), hashlib.sha256()
        size = 0
        async with _closing(source.again()) as stream:
            async for block in stream:
                wanted.update(block)
                size += len(block)
        if size != stored.size_bytes:
            return False
        async with self.get(stored.key) as stream:
            async for block in stream:
                found.update(block)
        return wanted.digest() == found.digest()

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opening is retried, and a stream that is cut goes on at its offset."""
        stream = _Resuming(self._inner, self._attempts("get", key), key, offset, length)
        try:
            await stream.start()
            yield stream
        finally:
            await stream.aclose()

    async def stat(self, key: str) -> ObjectInfo:
        """Retried."""
        return await self._attempts("stat", key).run(lambda: self._inner.stat(key))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """A listing that is cut goes on after the last key it yielded."""
        attempts = self._attempts("list", prefix)
        last = after
        entries: AsyncIterator[ObjectInfo] | None = None

        async def step() -> ObjectInfo | None:
            nonlocal entries
            entries = entries or self._inner.list(prefix, after=last)
            try:
                return await anext(entries, None)
            except Transient:
                entries = None  # a generator that raised is exhausted
                raise

        try:
            while (found := await attempts.run(step)) is not None:
                attempts.progressed()
                last = found.key
                yield found
        finally:
            if entries is not None:
                await _close(entries)

    async def delete(self, keys: Iterable[str]) -> None:
        """Retried batch by batch; what is deleted already is no error."""
        remaining = iter(keys)
        while batch := [*islice(remaining, DELETE_BATCH)]:
            attempts = self._attempts("delete", batch[0])
            await attempts.run(lambda batch=batch: self._inner.delete(batch))  # type: ignore[misc]


class _Resuming:
    """The blocks of a range, over as many streams of the wrapped storage as it takes."""

    def __init__(
        self, inner: Storage, attempts: Attempts, key: str, offset: int, length: int | None
    ) -> None:
        self._inner = inner
        self._attempts = attempts
        self._key = key
        self._offset = offset
        self._length = length
        self._open = AsyncExitStack()
        self._stream: AsyncIterator[bytes] | None = None

    async def start(self) -> None:
        await self._attempts.run(self._reopen)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        block = await self._attempts.run(self._next)
        if not block:
            raise StopAsyncIteration
        self._attempts.progressed()
        self._offset += len(block)
        if self._length is not None:
            self._length -= len(block)
        return block

    async def aclose(self) -> None:
        self._stream = None
        await self._open.aclose()

    async def _reopen(self) -> AsyncIterator[bytes]:
        await self.aclose()
        self._stream = await self._open.enter_async_context(
            self._inner.get(self._key, offset=self._offset, length=self._length)
        )
        return self._stream

    async def _next(self) -> bytes:
        try:
            stream = self._stream or await self._reopen()
            while (block := await anext(stream, None)) is not None:
                if block:
                    return block
        except Transient:
            await self.aclose()
            raise
        return b""


@asynccontextmanager
async def _closing(stream: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    try:
        yield stream
    finally:
        await _close(stream)


async def _close(stream: AsyncIterator[object]) -> None:
    """Close a stream that is a generator; others have nothing to close."""
    if isinstance(stream, AsyncGenerator):
        await stream.aclose()
