"""Loading the chunks of the base.

A unit of loading is a chunk object, or a capped collection, whose documents have to go in one after
the other in natural order. Units are spread over a few loaders; what a loader holds is taken from a
budget first. A unit counts as done once its documents are durable on a majority; one that was only
partly loaded when a worker died is loaded again, and what is there already is passed over (a capped
collection is emptied first: its order is part of it).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import bson

from agent.archive.manifest import ChunkObject, Segment
from agent.errors import RestoreFailed
from agent.faults import fault_point
from agent.mongo.apply.documents import RawDocument, cut
from agent.mongo.apply.inserting import insert, inserting
from agent.mongo.apply.operations import apply_commands
from agent.mongo.apply.structure import empty
from agent.mongo.apply.target import collections
from agent.mongo.counting import count_exactly, counts
from agent.mongo.raw import documents
from agent.operations.restore.job import Job, is_over
from agent.operations.restore.keeping import small_collections
from agent.operations.restore.mending import TOGETHER, Small, mend
from agent.operations.restore.reading import pieces
from agent.operations.restore.state import Bitmap
from agent.pipeline.budget import ByteBudget
from agent.replay.catalogue import Collection
from agent.replay.commands import creation
from agent.replay.entries import UPDATE
from agent.replay.scope import VIEWS
from agent.replay.zeros import may_hold_empty, restoring
from agent.tasks import TaskGroup
from agent.wire.namespaces import split

CHECKPOINT_EVERY_S: Final = 2.0
_WORKING_BYTES: Final = 64 << 20
"""What a loader holds beside the stored object: a frame, its documents one by one, the command that
they are encoded into and the driver's copy of it, each of up to 16 MiB."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Segments that are loaded together, object by object."""

    number: int
    parts: tuple[tuple[ChunkObject, tuple[Segment, ...]], ...]
    capped: Collection | None = None

    @property
    def documents(self) -> int:
        """How many documents it holds."""
        return sum(s.count for _, segments in self.parts for s in segments)


def plan_units(job: Job) -> list[Unit]:
    """All units, numbered the same for every worker of the restore."""
    objects = job.base.objects
    wanted = {c.uuid.hex(): c for c in job.catalogue if not c.is_ignored}
    units: list[Unit] = []
    capped: dict[str, list[tuple[ChunkObject, tuple[Segment, ...]]]] = defaultdict(list)
    for number, item in enumerate(objects):
        free: list[Segment] = []
        for segment in sorted(item.segments, key=lambda s: s.offset):
            collection = wanted.get(segment.uuid)
            if collection is None or not segment.count:
                continue
            if collection.is_capped:
                capped[segment.uuid].append((item, (segment,)))
            else:
                free.append(segment)
        if free:
            units.append(Unit(number, ((item, tuple(free)),)))
    for number, uuid in enumerate(sorted(wanted), start=len(objects)):
        if uuid in capped:
            units.append(Unit(number, tuple(capped[uuid]), wanted[uuid]))
    return units


class Loader:
    """Loads all units that are not done."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._done = Bitmap(job.keeper.state.loaded)
        self._is_again = job.keeper.state.load_begun
        self._collections = {c.uuid.hex(): c for c in job.catalogue}
        self._budget = ByteBudget(job.tuning.budget_bytes)
        self._small = {} if job.node.is_sharded else small_collections(job)
        self._changed = False
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Load, record progress on the way, and prove the counts."""
        units = plan_units(self._job)
        tally = self._job.tally
        tally.documents_total = sum(unit.documents for unit in units)
        tally.bytes_total = sum(s.length for u in units for _, found in u.parts for s in found)
        remaining = iter([unit for unit in units if unit.number not in self._done])
        for unit in units:
            if unit.number in self._done:
                self._count(unit)
        if not self._is_again:
            await self._job.keeper.save(load_begun=True)
        async with TaskGroup() as group:
            group.create_task(self._keep_recording())
            async with TaskGroup() as loaders:
                for _ in range(self._job.tuning.loaders):
                    loaders.create_task(self._load_each(remaining))
            self._ended.set()
        await self._record()
        await self._prove_counts(units)

    def _count(self, unit: Unit) -> None:
        tally = self._job.tally
        tally.documents_done += unit.documents
        tally.bytes_done += sum(s.length for _, found in unit.parts for s in found)

    async def _load_each(self, units: Iterator[Unit]) -> None:
        for unit in units:
            if unit.capped is not None:
                await self._empty(unit.capped)
            for item, segments in unit.parts:
                async with self._budget.take(item.size_bytes + _WORKING_BYTES):
                    await self._load(item, segments)
            self._done.add(unit.number)
            self._changed = True
            await fault_point("restore.chunk_loaded")

    async def _load(self, item: ChunkObject, segments: tuple[Segment, ...]) -> None:
        small: list[Small] = []
        begun = b""
        async for segment, data in pieces(self._job.storage, item, segments):
            collection = self._collections[segment.uuid]
            if segment.uuid in self._small:
                begun += data
                if len(begun) < segment.length:
                    continue  # the rest lies in the next frame
                small.append(Small(collection, begun))
                begun = b""
                if len(small) == TOGETHER:
                    await self._load_small(small)
                    small = []
                continue
            if split(collection.ns)[1] == VIEWS:
                await self._load_views(collection, data)
                continue
            await self._job.pace.keep(len(data))
            for batch in cut(data):
                await self._job.pace.keep()
                self._job.check()
                await insert(
                    self._job.node,
                    collection.target_ns,
                    batch,
                    is_ordered=collection.is_capped,
                    may_exist=self._is_again,
                    fence=self._job.fence,
                )
                self._job.tally.documents_done += len(batch)
            if may_hold_empty(data, 0, len(data)):
                await self._put_back_empty(collection, data)
            self._job.tally.bytes_done += len(data)
        await self._load_small(small)

    async def _load_small(self, group: list[Small]) -> None:
        size = sum(len(small.data) for small in group)
        await self._job.pace.keep(size)
        may_hold = self._job.keeper.state.keeps or self._is_again
        for written in await mend(self._job, group, may_hold=may_hold):
            if may_hold_empty(written.data, 0, len(written.data)):
                await self._put_back_empty(written.collection, written.data)
        self._job.tally.documents_done += sum(1 for s in group for _ in documents(s.data))
        self._job.tally.bytes_done += size

    async def _put_back_empty(self, collection: Collection, data: bytes) -> None:
        """Put empty timestamps back, which inserting has replaced by the time."""
        for start, end in documents(data):
            body = restoring(data, start) if may_hold_empty(data, start, end) else None
            if body is not None:
                update = RawDocument(collection.operation(UPDATE, body))
                await self._job.apply([update], is_lenient=collection.is_capped)

    async def _load_views(self, collection: Collection, data: bytes) -> None:
        """`system.views` takes no plain inserts, and a selective restore not every document."""
        for start, end in documents(data):
            raw: bytes | None = data[start:end]
            if collection.is_filtered:
                chosen = self._job.scope.view(bson.decode(data[start:end]))
                raw = None if chosen is None else bson.encode(chosen)
            if raw is not None:
                self._job.check()
                if collection.is_lazy:
                    await apply_commands(self._job.node, [creation(collection).document])
                    collection.is_lazy = False
                view = inserting(collection.target_ns, raw)
                await self._job.apply([view], is_lenient=True)
                self._job.tally.documents_done += 1
        self._job.tally.bytes_done += len(data)

    async def _empty(self, collection: Collection) -> None:
        if not self._is_again:
            return
        self._job.check()
        await empty(self._job.node, collection.target_ns, collection.target_uuid)

    async def _keep_recording(self) -> None:
        while not await is_over(self._ended, CHECKPOINT_EVERY_S):
            await self._record()

    async def _record(self) -> None:
        if not self._changed:
            return
        self._changed = False
        loaded = str(self._done)
        await self._job.committed()
        self._job.check()
        await self._job.keeper.save(loaded=loaded)
        await fault_point("restore.checkpoint")

    async def _prove_counts(self, units: list[Unit]) -> None:
        """As many documents are there as the manifest says. Raises `RestoreFailed`."""
        expected: dict[str, int] = defaultdict(int)
        for unit in units:
            for _, segments in unit.parts:
                for segment in segments:
                    expected[segment.uuid] += segment.count
        wanted = {
            self._collections[uuid].target_ns: documents
            for uuid, documents in expected.items()
            if not self._collections[uuid].is_capped and not self._collections[uuid].is_filtered
        }
        found = await counts(self._job.node, wanted)
        for namespace, expected_count in wanted.items():
            if found.get(namespace) == expected_count:
                continue
            held = await count_exactly(self._job.node, namespace)
            if held != expected_count:
                raise RestoreFailed(
                    f"{namespace} holds {held} documents after loading and should hold "
                    f"{expected_count}",
                    hint="keep others from writing to the target, and run the restore again",
                )


async def names_by_uuid(job: Job) -> dict[bytes, str]:
    """The target's collections as they are now."""
    return {present.uuid: present.ns for present in await collections(job.node)}
