"""Uploads of unknown length in parts, for every store that has such a thing, in bounded memory.

What fits in one part is stored by one request. Everything else goes up in parts, several at once:
at most `in_flight` parts are held besides the one that is being filled. Each part is tried again by
itself. Whatever ends an upload early, it is aborted, though its task is cancelled more than once.

Only what a store does differently is left to it: see `Target`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from agent.errors import Permanent, Transient, root_cause
from agent.storage.retrying import Attempts
from agent.tasks import TaskGroup

Receipt = TypeVar("Receipt")

ABORT_WITHIN_S: Final = 20.0
_CANCELLED_AGAIN: Final = 3


class Target(Protocol[Receipt]):
    """One upload to one key. `part` may be called again for the same part, by several tasks at
    once for different ones; all raise errors of `agent.errors`."""

    async def whole(self, body: bytes) -> None:
        """Store an object that fits in one part."""

    async def begin(self) -> None:
        """Begin an upload in parts."""

    async def part(self, number: int, body: bytes) -> Receipt:
        """Store part `number`, from 1 on."""

    async def finish(self, receipts: list[Receipt], size_bytes: int) -> None:
        """Make the object of all parts, in order."""

    async def abort(self) -> None:
        """Leave nothing of whatever was begun or stored by this upload. Called once, also after a
        call that was cancelled in the middle."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How an object is cut."""

    part_bytes: int
    max_parts: int
    in_flight: int

    @property
    def max_object_bytes(self) -> int:
        """The largest object."""
        return self.part_bytes * self.max_parts

    def for_size(self, size_hint: int | None) -> Plan:
        """The plan for an object that may be too large for parts of this size."""
        if size_hint is None or size_hint * 5 // 4 <= self.max_object_bytes:
            return self
        needed = -(-size_hint * 5 // 4 // self.max_parts)
        mib = 1 << 20
        return Plan(-(-needed // mib) * mib, self.max_parts, self.in_flight)


async def upload(
    source: AsyncIterator[bytes],
    target: Target[Receipt],
    plan: Plan,
    attempts: Callable[[], Attempts],
) -> int:
    """Store all blocks of the source; answers their size in bytes.

    `attempts` makes the counter of the attempts at one step. Raises what the source or the target
    raised, never a group; then nothing is left of the upload.
    """
    filler = _Filler(source, plan.part_bytes)
    try:
        body = await filler.next()
        if filler.is_at_end:
            await attempts().run(partial(target.whole, body))
            return len(body)
        await attempts().run(target.begin)
        sender = _Sender(target, plan, attempts)
        filler.put_back(body)
        del body  # it would be held until the end
        receipts, size_bytes = await sender.send(filler)
        await attempts().run(lambda: target.finish(receipts, size_bytes))
    except BaseException as error:
        await _abort(target)
        if isinstance(error, BaseExceptionGroup):
            raise root_cause(error) from None
        raise
    return size_bytes


async def _abort(target: Target[Receipt]) -> None:
    """A task may be cancelled again while it cleans up: that only makes it begin anew."""
    for _ in range(_CANCELLED_AGAIN):
        try:
            async with asyncio.timeout(ABORT_WITHIN_S):
                await target.abort()
        except asyncio.CancelledError:
            continue
        except (Transient, Permanent, TimeoutError):
            pass  # the first error is the one to tell; a lifecycle rule removes what is left
        return


class _Filler:
    """Collects blocks of any size into parts of one size."""

    def __init__(self, source: AsyncIterator[bytes], part_bytes: int) -> None:
        self._source = source
        self._part_bytes = part_bytes
        self._rest = memoryview(b"")
        self._first: bytes | None = None
        self.is_at_end = False

    def put_back(self, part: bytes) -> None:
        """The next part will be this one."""
        self._first = part

    async def next(self) -> bytes:
        """A full part, or what is left: then `is_at_end`. A source that ends exactly with a part
        is known to be at its end."""
        if self._first is not None:
            part, self._first = self._first, None
            return part
        pieces: list[memoryview] = []
        room = self._part_bytes
        while True:
            piece, self._rest = self._rest[:room], self._rest[room:]
            pieces.append(piece)
            room -= len(piece)
            if self._rest:
                break
            block = await anext(self._source, None)
            if block is None:
                self.is_at_end = True
                break
            self._rest = memoryview(block)
        return b"".join(pieces)


@dataclass
class _Sender(Generic[Receipt]):
    """The parts of one upload."""

    target: Target[Receipt]
    plan: Plan
    attempts: Callable[[], Attempts]
    receipts: dict[int, Receipt] = field(default_factory=dict)

    async def send(self, filler: _Filler) -> tuple[list[Receipt], int]:
        slots = asyncio.Semaphore(self.plan.in_flight)
        size_bytes, number = 0, 0
        async with TaskGroup() as group:
            while not filler.is_at_end:
                body = await filler.next()
                number += 1
                size_bytes += len(body)
                if number > self.plan.max_parts:
                    raise Permanent(
                        f"an object has more than {self.plan.max_parts} parts of "
                        f"{self.plan.part_bytes} bytes",
                        hint="raise uploadPartSize",
                    )
                await slots.acquire()
                group.create_task(self._send(number, body, slots))
                del body
        return [self.receipts[each] for each in sorted(self.receipts)], size_bytes

    async def _send(self, number: int, body: bytes, slots: asyncio.Semaphore) -> None:
        try:
            counted = self.attempts()
            self.receipts[number] = await counted.run(lambda: self.target.part(number, body))
        finally:
            slots.release()
