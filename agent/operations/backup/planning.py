"""Planning what is left to read, in the order of the catalogue.

Planners walk the catalogue together. A small collection is read at once into the planner's bundle;
a larger one is cut into ranges, which go to the readers through a bounded channel as they are
found. A collection counts as small once it has been read, so no statistics are needed for thousands
of tiny ones. What an earlier worker finished, says the journal, is left out.

Ranges are for what is too large to be read at one OpTime, and for what keeps readers busy that had
nothing to do otherwise. Any other collection is read whole, in natural order: that costs mongod
half the work. A whole that is lost on the way is read in ranges after all.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from agent.archive.manifest import CollectionEntry
from agent.mongo.catalogue import Sizes, collection_sizes
from agent.mongo.cursor import CollectionGone, SnapshotLost
from agent.mongo.heads import HEAD_DOCUMENTS
from agent.mongo.node import Node
from agent.mongo.ranges import documents_a_range, find_ranges
from agent.operations.backup.bundling import Bundle
from agent.operations.backup.journal import FinishedUnit
from agent.operations.backup.moments import WHOLE_S, ReadClock
from agent.operations.backup.reading import (
    CHUNK_BYTES,
    WHOLE_BYTES,
    Reader,
    SmallCollection,
    Unit,
    decoded_bound,
    encoded_bound,
    is_fuzzy,
)
from agent.pipeline.budget import ByteBudget
from agent.pipeline.channel import Channel

PLANNER_BUDGET_BYTES: Final = 48 << 20
"""A planner's bundle and one reply."""
_MOST_TOGETHER: Final = 64
"""Tiny collections that are read in one go."""
_CORES_A_STREAM: Final = 3
"""What one stream keeps busy: mongod one core, and the agent two that receive and compress."""


@dataclass(slots=True)
class Remaining:
    """What the journal says is finished."""

    bundled: set[str] = field(default_factory=set)
    ranges: dict[str, list[FinishedUnit]] = field(default_factory=dict)

    @classmethod
    def after(cls, units: list[FinishedUnit]) -> Remaining:
        """From the finished units of a journal."""
        found = cls()
        for unit in units:
            if unit.uuid is None:
                found.bundled.update(s.uuid for o in unit.objects for s in o.segments)
            else:
                found.ranges.setdefault(unit.uuid, []).append(unit)
        for ranges in found.ranges.values():
            ranges.sort(key=lambda unit: unit.sequence)
        return found


@dataclass(frozen=True, slots=True)
class Gap:
    """An unread part of a collection: `[minimum, maximum)`, and where its units sort."""

    minimum: bytes | None
    maximum: bytes | None
    prefix: tuple[int, ...]


def gaps(finished: list[FinishedUnit]) -> Iterator[Gap]:
    """The holes between finished ranges given in order of their sequence, which is the order of
    their bounds: no bound is ever compared for anything but equality."""
    low: str | None = None
    previous: tuple[int, ...] = (-1,)
    for unit in finished:
        if unit.min != low:
            prefix = _between(previous, unit.sequence)
            yield Gap(decoded_bound(low), decoded_bound(unit.min), prefix)
        if unit.max is None:
            return
        low, previous = unit.max, unit.sequence
    yield Gap(decoded_bound(low), None, previous)


def _between(previous: tuple[int, ...], following: tuple[int, ...]) -> tuple[int, ...]:
    """A prefix under which every sequence sorts after the one and before the other."""
    depth = len(previous)
    if following[:depth] != previous:
        return previous
    return (*previous, following[depth] - 1)


@dataclass(frozen=True, slots=True)
class Lanes:
    """Whether a collection may be read whole, and how many at once keep the machine busy."""

    total_bytes: Callable[[], Awaitable[int]]
    """What all collections hold together."""
    pace_s: Callable[[int], float]
    """How long reading so many bytes takes at the rate that is allowed now."""
    readers: int

    async def fit(self, size_bytes: int) -> bool:
        """Whether one of this size is no more than a stream's share of all, and may be read within
        seconds."""
        if size_bytes > WHOLE_BYTES or self.pace_s(size_bytes) > WHOLE_S:
            return False
        lanes = max(1, min(self.readers, (os.cpu_count() or 1) // _CORES_A_STREAM))
        return lanes == 1 or size_bytes * lanes <= await self.total_bytes()


class Ranges:
    """Cuts collections into ranges of about a chunk."""

    def __init__(self, node: Node, read_clock: ReadClock) -> None:
        self._node = node
        self._read_clock = read_clock

    async def units(
        self, entry: CollectionEntry, sizes: Sizes, finished: list[FinishedUnit]
    ) -> AsyncGenerator[Unit]:
        """What is left of a collection, in order."""
        skip = documents_a_range(sizes.bytes, sizes.documents, CHUNK_BYTES)
        for gap in gaps(finished):
            numbers = itertools.count()
            async with aclosing(self._of(entry, gap, skip)) as ranges:
                async for minimum, maximum in ranges:
                    sequence = (*gap.prefix, next(numbers))
                    yield Unit(entry, sequence, minimum, maximum, average_bytes(sizes))

    async def of_lost(self, entry: CollectionEntry) -> AsyncGenerator[Unit]:
        """All of a collection that could not be read whole."""
        units = self.units(entry, await collection_sizes(self._node, entry.ns), [])
        async with aclosing(units):
            async for unit in units:
                yield unit

    async def _of(
        self, entry: CollectionEntry, gap: Gap, skip: int
    ) -> AsyncGenerator[tuple[bytes | None, bytes | None]]:
        """Ranges that cover a gap; planned at a later OpTime where the first is lost."""
        low, losses = gap.minimum, 0
        while True:
            ranges = find_ranges(
                self._node,
                ns=entry.ns,
                uuid=entry.uuid,
                read_at=await self._read_clock.now(),
                skip=skip,
                start=low,
                end=gap.maximum,
            )
            try:
                async with aclosing(ranges):
                    async for minimum, maximum in ranges:
                        yield minimum, maximum
                        low, losses = maximum, 0
                return
            except SnapshotLost as error:
                losses += 1
                await self._read_clock.recover(losses, error)


class Planner:
    """One of several that share the iterator over the catalogue."""

    def __init__(
        self,
        node: Node,
        reader: Reader,
        *,
        ranges: Ranges,
        lanes: Lanes | None,
        budget: ByteBudget,
        remaining: Remaining,
        units: Channel[Unit],
        on_finished: Callable[[FinishedUnit], Awaitable[None]],
        on_gone: Callable[[CollectionEntry], None],
    ) -> None:
        self._node = node
        self._reader = reader
        self._ranges = ranges
        self._lanes = lanes
        self._budget = budget
        self._remaining = remaining
        self._units = units
        self._on_finished = on_finished
        self._on_gone = on_gone
        self._bundle = Bundle(reader)
        self._together = 1

    async def run(self, catalogue: Iterator[CollectionEntry]) -> None:
        """Plan until the shared iterator ends, then store the last bundle."""
        bundled = self._remaining.bundled
        unread = (entry for entry in catalogue if entry.uuid not in bundled)
        async with self._budget.take(PLANNER_BUDGET_BYTES):
            while group := list(itertools.islice(unread, self._together)):
                await self._plan(group)
            await self._store_bundle()

    async def _plan(self, group: list[CollectionEntry]) -> None:
        """Several are read in one go where those before them were tiny: a collection that is not
        is read a second time, and others wait for it that another planner could take."""
        begun = self._remaining.ranges
        whole = [entry for entry in group if entry.uuid not in begun]
        tiny = await self._reader.read_tiny(whole) if len(whole) > 1 else {}
        are_tiny = True
        for entry in group:
            try:
                found = tiny.get(entry.uuid)
                if found is None and entry.uuid not in begun:
                    found = await self._reader.read_small(entry)
                if found is None:
                    await self._send(entry)
                else:
                    await self._take(found)
                are_tiny &= found is not None and found.segment.count <= HEAD_DOCUMENTS
            except CollectionGone:
                self._on_gone(entry)
        self._together = min(_MOST_TOGETHER, 2 * self._together) if are_tiny else 1

    async def _take(self, small: SmallCollection) -> None:
        await self._bundle.add(small)
        if self._bundle.is_full:
            await self._store_bundle()

    async def _store_bundle(self) -> None:
        stored = await self._bundle.store()
        if stored is not None:
            await self._on_finished(FinishedUnit(objects=(stored,)))

    async def _send(self, entry: CollectionEntry) -> None:
        finished = self._remaining.ranges.get(entry.uuid, [])
        # By name, so it may be another's size by now: it decides how a collection is cut, no more.
        sizes = await collection_sizes(self._node, entry.ns)
        if is_fuzzy(entry):
            # Natural order knows no ranges.
            if not finished:
                await self._units.put(Unit(entry, (0,), document_bytes=average_bytes(sizes)))
            return
        if self._lanes is not None and not finished and await self._lanes.fit(sizes.bytes):
            size = max(1, sizes.bytes)
            await self._units.put(
                Unit(entry, (0,), document_bytes=average_bytes(sizes), whole_bytes=size)
            )
            return
        async with aclosing(self._ranges.units(entry, sizes, finished)) as units:
            async for unit in units:
                await self._units.put(unit)


def average_bytes(sizes: Sizes) -> int:
    """Of a document."""
    return sizes.bytes // max(1, sizes.documents)


def finished_unit(unit: Unit) -> FinishedUnit:
    """A journal record of a range, objects to be added."""
    return FinishedUnit(
        uuid=unit.entry.uuid,
        sequence=unit.sequence,
        min=encoded_bound(unit.minimum),
        max=encoded_bound(unit.maximum),
    )
