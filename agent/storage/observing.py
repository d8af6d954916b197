"""Wrapper: one debug event and a few counts for each call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from agent.clock import Clock, SystemClock
from agent.errors import PermissionDenied, StorageFull, Throttled, TidelogError, Transient
from agent.storage.base import ObjectInfo, Storage
from agent.storage.describing import Ending
from agent.storage.wrapping import WrappingStorage

_ITS_FAULT: Final = (Transient, PermissionDenied, StorageFull)
"""Not among them: an object that is not there, which is an answer."""
VERBS: Final = ("put", "get", "stat", "list", "delete", "verify")


@dataclass
class VerbCounts:
    """What was asked of one verb; all only rise."""

    calls: int = 0
    errors: int = 0
    retries: int = 0
    bytes: int = 0
    """Stored by `put`, delivered by `get`."""
    objects: int = 0
    """Listed by `list`, named to `delete`."""
    seconds: float = 0.0


@dataclass
class StorageCounters:
    """Counts of one storage, for metrics and `ctl`."""

    verbs: dict[str, VerbCounts] = field(
        default_factory=lambda: {verb: VerbCounts() for verb in VERBS}
    )
    throttled: int = 0
    """How often the storage asked for fewer requests."""
    failures: dict[str, int] = field(default_factory=dict)
    """Calls that the storage did not carry out, by the name of the error."""
    failing_since: float | None = None
    """When the first attempt failed of those that no success followed; by the process's clock."""

    credentials_left_s: float | None = None
    """As of the last call; None: they do not end, or are renewed by themselves."""

    def answered(self) -> None:
        """The storage did what was asked, or said why that cannot be."""
        self.failing_since = None

    def failed(self, error: BaseException, now: float) -> None:
        """The storage did not do its part in one attempt."""
        if isinstance(error, _ITS_FAULT) and self.failing_since is None:
            self.failing_since = now

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Plain numbers per verb."""
        return {verb: vars(counts).copy() for verb, counts in self.verbs.items()}


class Observer:
    """Counts and logs; also told of retries by the retrying wrapper."""

    def __init__(
        self,
        address: str,
        counters: StorageCounters | None = None,
        *,
        clock: Clock | None = None,
        log: Any = None,
        ending: Ending | None = None,
    ) -> None:
        self._ending = ending
        self.counters = counters if counters is not None else StorageCounters()
        self._clock = clock or SystemClock()
        self._log = (log if log is not None else structlog.get_logger()).bind(storage=address)

    @contextmanager
    def call(self, verb: str, key: str) -> Iterator[VerbCounts]:
        """Around one call, which adds its bytes and objects to what it is given."""
        counts, own = self.counters.verbs[verb], VerbCounts()
        started = self._clock.monotonic()
        failure: BaseException | None = None
        try:
            yield own
        except GeneratorExit:
            raise  # a reader that has seen enough
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = self._clock.monotonic() - started
            counts.calls += 1
            counts.errors += failure is not None
            counts.bytes += own.bytes
            counts.objects += own.objects
            counts.seconds += seconds
            self._judge(failure)
            if self._ending is not None:
                self.counters.credentials_left_s = self._ending.credentials_left_s
            fields: dict[str, Any] = {"key": key, "seconds": round(seconds, 4)}
            fields |= {"bytes": own.bytes} if own.bytes else {}
            fields |= {"objects": own.objects} if own.objects else {}
            if failure is not None:
                fields |= {"error": type(failure).__name__, "reason": str(failure)}
            self._log.debug(f"storage.{verb}", **fields)

    def _judge(self, failure: BaseException | None) -> None:
        counters = self.counters
        if failure is None:
            counters.answered()
        elif isinstance(failure, TidelogError):
            counters.failed(failure, self._clock.monotonic())
            name = type(failure).__name__
            counters.failures[name] = counters.failures.get(name, 0) + 1

    def retried(
        self, verb: str, key: str, attempt: int, error: BaseException, pause_s: float
    ) -> None:
        """An attempt failed and will be repeated."""
        self.counters.verbs[verb].retries += 1
        self.counters.throttled += isinstance(error, Throttled)
        self.counters.failed(error, self._clock.monotonic())
        self._log.warning(
            "storage.retry",
            verb=verb,
            key=key,
            attempt=attempt,
            pause_s=round(pause_s, 2),
            error=type(error).__name__,
            reason=str(error),
        )


class ObservingStorage(WrappingStorage):
    """See `agent.storage.base.Storage`; owns and closes the storage it wraps."""

    def __init__(self, inner: Storage, observer: Observer) -> None:
        super().__init__(inner)
        self._observer = observer

    @property
    def counters(self) -> StorageCounters:
        """What was counted so far."""
        return self._observer.counters

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Observed; the source goes on as it is, so that it stays replayable."""
        with self._observer.call("put", key) as counts:
            stored = await self._inner.put(key, source, size_hint=size_hint)
            counts.bytes += stored.size_bytes
            return stored

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Observed from opening to closing."""
        with self._observer.call("get", key) as counts:
            async with (
                self._inner.get(key, offset=offset, length=length) as stream,
                aclosing(_counted(stream, counts)) as counted,
            ):
                yield counted

    async def stat(self, key: str) -> ObjectInfo:
        """Observed."""
        with self._observer.call("stat", key):
            return await self._inner.stat(key)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Observed as one call, however many requests it takes."""
        with self._observer.call("list", prefix) as counts:
            async for found in self._inner.list(prefix, after=after):
                counts.objects += 1
                yield found

    async def delete(self, keys: Iterable[str]) -> None:
        """Observed as one call."""
        named = [*keys]
        with self._observer.call("delete", named[0] if named else "") as counts:
            counts.objects += len(named)
            await self._inner.delete(named)

    async def verify(self) -> None:
        """Observed."""
        with self._observer.call("verify", ""):
            await self._inner.verify()


async def _counted(stream: AsyncIterator[bytes], counts: VerbCounts) -> AsyncGenerator[bytes, None]:
    async for block in stream:
        counts.bytes += len(block)
        yield block
