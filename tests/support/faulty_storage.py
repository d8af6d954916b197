"""A storage that fails to a script: the n-th call of a verb errs, waits, lies or loses.

    faulty = FaultyStorage(inner)
    faulty.fail("put", StorageUnavailable("no route"), call=3)       # the third put
    faulty.fail("get", Throttled("slow down"), call=1, times=2)      # the first two
    faulty.fail("put", StorageFull("full"), call=2, times=FOREVER, matching="chunks/")
    faulty.cut("get", at=1000, error=StorageUnavailable("reset"))    # after 1,000 bytes
    faulty.corrupt("put", at=17)                                     # byte 17 is stored flipped
    faulty.truncate("get", at=100)                                   # the stream just ends
    faulty.drop_write(call=2)                                        # says done, stores nothing
    faulty.drop_delete()
    faulty.fail_after("put", StorageUnavailable("reset"))            # done, but the answer is lost
    faulty.duplicate_entries()                                       # a listing repeats itself
    faulty.delay("stat", 0.2)
    faulty.hide("slices/")                                           # lists lack what is there…
    faulty.haunt(info)                                               # …and have what is not

Calls are counted per verb from 1, with `matching` only those whose key starts with it. `calls` is
the record of all of them. One without a script changes nothing: it passes the contract suite.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

from agent.clock import Clock, SystemClock
from agent.storage.base import ObjectInfo, Storage
from agent.storage.wrapping import WrappingStorage

Verb = Literal["put", "get", "stat", "list", "delete", "verify"]
Kind = Literal["fail", "fail_after", "delay", "corrupt", "truncate", "cut", "drop", "duplicate"]

FOREVER: Final = sys.maxsize


@dataclass
class Fault:
    """One line of the script."""

    verb: Verb
    kind: Kind
    call: int
    times: int
    matching: str
    at: int = 0
    error: Exception | None = None
    delay_s: float = 0.0
    seen: int = 0

    def strikes(self, verb: str, key: str) -> bool:
        """Count a call; whether this fault is for it."""
        if verb != self.verb or not key.startswith(self.matching):
            return False
        self.seen += 1
        return self.call <= self.seen < self.call + self.times


class FaultyStorage(WrappingStorage):
    """See `agent.storage.base.Storage`; owns and closes the storage it wraps."""

    def __init__(self, inner: Storage, *, clock: Clock | None = None) -> None:
        super().__init__(inner)
        self.inner = inner
        self.calls: list[tuple[str, str]] = []
        self._clock = clock or SystemClock()
        self._script: list[Fault] = []
        self._hidden: dict[str, int] = {}
        self._ghosts: dict[str, ObjectInfo] = {}

    # The script.

    def fail(
        self, verb: Verb, error: Exception, *, call: int = 1, times: int = 1, matching: str = ""
    ) -> None:
        """Raise instead of calling."""
        self._script.append(Fault(verb, "fail", call, times, matching, error=error))

    def fail_after(
        self, verb: Verb, error: Exception, *, call: int = 1, times: int = 1, matching: str = ""
    ) -> None:
        """Call, then raise: the answer was lost. Not for `get` and `list`."""
        self._script.append(Fault(verb, "fail_after", call, times, matching, error=error))

    def delay(
        self, verb: Verb, delay_s: float, *, call: int = 1, times: int = FOREVER, matching: str = ""
    ) -> None:
        """Wait before calling."""
        self._script.append(Fault(verb, "delay", call, times, matching, delay_s=delay_s))

    def corrupt(
        self,
        verb: Literal["put", "get"],
        at: int,
        *,
        call: int = 1,
        times: int = 1,
        matching: str = "",
    ) -> None:
        """Flip the bits of one byte on its way; `at` counts from the start of the stream."""
        self._script.append(Fault(verb, "corrupt", call, times, matching, at=at))

    def truncate(
        self,
        verb: Literal["put", "get"],
        at: int,
        *,
        call: int = 1,
        times: int = 1,
        matching: str = "",
    ) -> None:
        """Lose what comes after so many bytes, without an error."""
        self._script.append(Fault(verb, "truncate", call, times, matching, at=at))

    def cut(
        self,
        verb: Literal["put", "get", "list"],
        at: int,
        error: Exception,
        *,
        call: int = 1,
        times: int = 1,
        matching: str = "",
    ) -> None:
        """Raise after so many bytes (entries of a `list`)."""
        self._script.append(Fault(verb, "cut", call, times, matching, at=at, error=error))

    def drop_write(self, *, call: int = 1, times: int = 1, matching: str = "") -> None:
        """Read the source of a `put`, say it is stored, and store nothing."""
        self._script.append(Fault("put", "drop", call, times, matching))

    def drop_delete(self, *, call: int = 1, times: int = 1, matching: str = "") -> None:
        """Say that objects are deleted, and delete nothing."""
        self._script.append(Fault("delete", "drop", call, times, matching))

    def duplicate_entries(self, *, call: int = 1, times: int = FOREVER, matching: str = "") -> None:
        """Yield each entry of a listing twice."""
        self._script.append(Fault("list", "duplicate", call, times, matching))

    def hide(self, prefix: str, *, times: int = FOREVER) -> None:
        """So many listings that reach there lack the keys that begin so."""
        self._hidden[prefix] = times

    def haunt(self, *ghosts: ObjectInfo) -> None:
        """Listings have these, which are gone."""
        self._ghosts.update((ghost.key, ghost) for ghost in ghosts)

    def heal(self) -> None:
        """Forget the script."""
        self._script.clear()
        self._hidden.clear()
        self._ghosts.clear()

    def count(self, verb: Verb) -> int:
        """How often a verb was called."""
        return sum(called == verb for called, _ in self.calls)

    # The storage.

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Scripted."""
        faults = await self._begin("put", key)
        async with aclosing(_harmed(source, faults)) as harmed:
            if any(fault.kind == "drop" for fault in faults):
                return ObjectInfo(key, sum([len(block) async for block in harmed]))
            stored = await self.inner.put(key, harmed, size_hint=size_hint)
        _end(faults)
        return stored

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Scripted."""
        faults = await self._begin("get", key)
        async with (
            self.inner.get(key, offset=offset, length=length) as stream,
            aclosing(_harmed(stream, faults)) as harmed,
        ):
            yield harmed

    async def stat(self, key: str) -> ObjectInfo:
        """Scripted."""
        faults = await self._begin("stat", key)
        found = await self.inner.stat(key)
        _end(faults)
        return found

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Scripted."""
        faults = await self._begin("list", prefix)
        repeats = 2 if any(fault.kind == "duplicate" for fault in faults) else 1
        cut = next((fault for fault in faults if fault.kind == "cut"), None)
        position = 0
        async for found in self._listed(prefix, after):
            if cut is not None and position >= cut.at:
                break
            position += 1
            for _ in range(repeats):
                yield found
        if cut is not None and cut.error is not None:
            raise cut.error

    async def _listed(self, prefix: str, after: str | None) -> AsyncGenerator[ObjectInfo, None]:
        """What the list shows, be it behind or not."""
        hidden = [one for one, left in self._hidden.items() if left and _meet(one, prefix)]
        for one in hidden:
            self._hidden[one] -= 1
        listed = {
            found.key: found
            async for found in self.inner.list(prefix, after=after)
            if not found.key.startswith(tuple(hidden))
        }
        for key, ghost in self._ghosts.items():
            if key.startswith(prefix) and (after is None or key > after):
                listed.setdefault(key, ghost)
        for key in sorted(listed):
            yield listed[key]

    async def delete(self, keys: Iterable[str]) -> None:
        """Scripted; `matching` looks at the first key."""
        named = [*keys]
        faults = await self._begin("delete", named[0] if named else "")
        if not any(fault.kind == "drop" for fault in faults):
            await self.inner.delete(named)
        _end(faults)

    async def verify(self) -> None:
        """Scripted."""
        faults = await self._begin("verify", "")
        await self.inner.verify()
        _end(faults)

    async def _begin(self, verb: Verb, key: str) -> tuple[Fault, ...]:
        self.calls.append((verb, key))
        faults = tuple([fault for fault in self._script if fault.strikes(verb, key)])
        for fault in faults:
            if fault.kind == "delay":
                await self._clock.sleep(fault.delay_s)
        for fault in faults:
            if fault.kind == "fail" and fault.error is not None:
                raise fault.error
        return faults


def _meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _end(faults: Iterable[Fault]) -> None:
    for fault in faults:
        if fault.kind == "fail_after" and fault.error is not None:
            raise fault.error


async def _harmed(
    stream: AsyncIterator[bytes], faults: tuple[Fault, ...]
) -> AsyncGenerator[bytes, None]:
    position = 0
    async for block in stream:
        harmed = block
        for fault in faults:
            at = fault.at - position
            if fault.kind == "corrupt" and 0 <= at < len(harmed):
                harmed = harmed[:at] + bytes([harmed[at] ^ 0xFF]) + harmed[at + 1 :]
            elif fault.kind in ("cut", "truncate") and at <= len(harmed):
                if at > 0:
                    yield harmed[:at]
                if fault.kind == "cut" and fault.error is not None:
                    raise fault.error
                return
        position += len(block)
        yield harmed
