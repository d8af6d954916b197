"""The snapshot of one replica set: where it begins, what runs at once, and when it is complete.

    first_write ── F0 = majority OpTime, or just before the oldest open transaction
                   archiving of the oplog starts here, before any document is read
    catalogue_at ─ S ≥ F0: the catalogue, exact; documents are read at S too, later ones later
    read_end ───── the last OpTime that anything was read at
    last_write ─── chosen by the lead once every replica set has read all; archived up to here

Two planners and some readers run in one task group beside the archiver and the journal's flusher;
the first error cancels them all, and what the journal holds by then is what the next worker goes on
from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from agent.archive.codec import Compression
from agent.archive.manifest import ChunkObject, CollectionEntry, SliceRef
from agent.archive.sharing import shared_extended
from agent.clock import Clock
from agent.errors import IntegrityError, Transient
from agent.faults import fault_point
from agent.mongo.catalogue import CatalogueRow, Sizes, catalogue_rows, total_sizes
from agent.mongo.cursor import CollectionGone, SnapshotLost
from agent.mongo.listing import CatalogueMoved
from agent.mongo.node import Node
from agent.mongo.oplog import Position, open_transactions_start
from agent.operations.archiver import OplogArchiver, Slice
from agent.operations.backup.journal import (
    ArchivedSlice,
    Begun,
    FinishedUnit,
    Journal,
    Progressed,
    read_journal,
)
from agent.operations.backup.moments import ReadClock
from agent.operations.backup.planning import (
    PLANNER_BUDGET_BYTES,
    Lanes,
    Planner,
    Ranges,
    Remaining,
    finished_unit,
)
from agent.operations.backup.reading import (
    STREAM_BUDGET_BYTES,
    UNIT_BUDGET_BYTES,
    ChunkWriter,
    Reader,
    Tally,
    Unit,
)
from agent.operations.governor import Governor
from agent.pipeline.budget import ByteBudget
from agent.pipeline.channel import Channel
from agent.storage.base import Storage
from agent.tasks import TaskGroup
from agent.wire.namespaces import Selection
from agent.wire.operations import Progress
from agent.wire.optime import OpTime

ARCHIVE_EVERY_S: Final = 1.0
REPORT_EVERY_S: Final = 1.0
PLANNERS: Final = 2
DEFAULT_READERS: Final = 3
COMMIT_TIMEOUT_S: Final = 60.0
LISTINGS: Final = 60
LIST_AGAIN_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class SnapshotOptions:
    """What varies from backup to backup."""

    name: str
    op_id: str
    epoch: int
    selection: Selection
    compression: Compression
    readers: int
    budget_bytes: int
    governor: Governor | None = None


@dataclass(frozen=True, slots=True)
class SnapshotOutcome:
    """A complete snapshot, archived up to `last_write`."""

    begun: Begun
    read_end: OpTime
    objects: tuple[ChunkObject, ...]
    slices: tuple[SliceRef, ...]
    gone: tuple[str, ...]
    tally: Tally


class Snapshot:
    """Reads one replica set through one node, resuming whatever the journal holds."""

    def __init__(
        self,
        node: Node,
        storage: Storage,
        clock: Clock,
        options: SnapshotOptions,
        *,
        check: Callable[[], None],
        report: Callable[[Progress], Awaitable[None]],
        resumed: Callable[[Progress], Awaitable[None]] | None = None,
    ) -> None:
        """`check` raises when this worker must not write any more; `resumed` is told once what the
        journal holds, if an earlier worker began it."""
        self._node = node
        self._storage = storage
        self._clock = clock
        self._options = options
        self._check = check
        self._report = report
        self._resumed = resumed
        self._tally = Tally()
        self._journal = Journal(storage, options.name, node.replset, options.epoch)
        self._progressed = Progressed()
        self._is_read = asyncio.Event()
        self._is_ended = asyncio.Event()

    async def take(
        self,
        last_write: Callable[[OpTime], Awaitable[OpTime]],
        *,
        known_end: OpTime | None = None,
    ) -> SnapshotOutcome:
        """Read everything, then archive up to what `last_write(read_end)` answers. An earlier
        worker that got as far as asking for it has told its `read_end`: that is `known_end`, and
        the journal holds everything that was read.

        Raises what reading and storing raise; durable progress is in the journal.
        """
        begun, read_clock = await self._begin()
        archiver = self._archiver(begun)
        async with TaskGroup() as group:
            group.create_task(self._journal.run())
            sizing = group.create_task(self._size(begun))
            reporter = group.create_task(self._keep_reporting(sizing))
            archiving = group.create_task(self._keep_archiving(archiver))
            if known_end is None:
                await self._read_all(begun, read_clock, sizing)
            self._is_read.set()
            await reporter
            read_end = known_end or await self._end_of_reading(begun)
            await self._journal.flush()
            end = await last_write(read_end)
            self._is_ended.set()
            await archiving
            await self._archive_up_to(archiver, end)
            self._journal.close()
        self._prove_drops()
        return SnapshotOutcome(
            begun=begun,
            read_end=read_end,
            objects=tuple(item for unit in self._progressed.units for item in unit.objects),
            slices=tuple(archived.ref for archived in self._progressed.slices),
            gone=tuple(sorted(self._progressed.gone)),
            tally=self._tally,
        )

    async def _begin(self) -> tuple[Begun, ReadClock]:
        options = self._options
        self._progressed = await read_journal(self._storage, options.name, self._node.replset)
        self._check()
        if self._progressed.begun is not None:
            begun = self._progressed.begun
            await self._node.wait_majority(begun.catalogue_at, timeout_s=COMMIT_TIMEOUT_S)
            await self._journal.resume(self._progressed)
            self._tally.bytes = sum(
                o.plain_bytes for u in self._progressed.units for o in u.objects
            )
            self._tally.documents = sum(
                o.documents for u in self._progressed.units for o in u.objects
            )
            if self._resumed is not None:
                tally = self._tally
                await self._resumed(
                    Progress(bytes_done=tally.bytes, documents_done=tally.documents)
                )
            read_clock = ReadClock(self._node, self._clock, begun.catalogue_at)
            await read_clock.renew()
            return begun, read_clock
        floor = await self._node.committed()
        oldest = await open_transactions_start(self._node)
        first_write = floor if oldest is None else min(floor, OpTime.unpack(oldest.pack() - 1))
        read_at, catalogue = await self._list()
        read_clock = ReadClock(self._node, self._clock, read_at)
        begun = Begun(first_write=first_write, catalogue_at=read_at, catalogue=tuple(catalogue))
        await self._journal.begin(begun)
        self._progressed.begun = begun
        await fault_point("snapshot.catalogued")
        return begun, read_clock

    async def _list(self) -> tuple[OpTime, list[CollectionEntry]]:
        """The catalogue and its moment. Raises `CatalogueMoved` where it never stands still."""
        for left in reversed(range(LISTINGS)):
            read_at = await self._node.committed()
            try:
                async with aclosing(catalogue_rows(self._node, read_at)) as rows:
                    return read_at, [_entry(row) async for row in rows if self._is_wanted(row)]
            except CatalogueMoved:
                if not left:
                    raise
            await self._clock.sleep(LIST_AGAIN_S)
        raise AssertionError("unreachable")

    def _is_wanted(self, row: CatalogueRow) -> bool:
        return self._options.selection.holds(row.ns)

    def _archiver(self, begun: Begun) -> OplogArchiver:
        slices = self._progressed.slices
        last = slices[-1].ref if slices else None
        return OplogArchiver(
            self._node,
            self._storage,
            compression=self._options.compression,
            epoch=self._options.epoch,
            position=Position(last.end, last.end_term) if last else Position(begun.first_write),
            previous_sha256=last.sha256 if last else None,
            on_slice=self._remember_slice,
            op_id=self._options.op_id,
        )

    async def _remember_slice(self, archived: Slice) -> None:
        self._check()
        record = ArchivedSlice(ref=archived.ref, dropped=tuple(sorted(archived.dropped)))
        self._progressed.slices.append(record)
        self._journal.add(archived=record)

    async def _remember_unit(self, unit: FinishedUnit) -> None:
        self._progressed.units.append(unit)
        self._journal.add(unit=unit)
        await self._journal.room()

    def _remember_gone(self, entry: CollectionEntry) -> None:
        self._progressed.gone.add(entry.uuid)
        self._journal.add(gone=entry.uuid)

    async def _keep_archiving(self, archiver: OplogArchiver) -> None:
        """Follow the oplog until the end is known, so that it cannot roll over unseen."""
        while not await _within(self._is_ended, ARCHIVE_EVERY_S):
            await archiver.read()

    async def _archive_up_to(self, archiver: OplogArchiver, end: OpTime) -> None:
        await self._node.wait_majority(end, timeout_s=COMMIT_TIMEOUT_S)
        if archiver.position.optime < end:
            await archiver.read(end)
        await archiver.close()

    async def _read_all(
        self, begun: Begun, read_clock: ReadClock, sizing: asyncio.Task[Sizes]
    ) -> None:
        options = self._options
        planning = planners_within(options.budget_bytes)
        budget = ByteBudget(max(options.budget_bytes, least_budget(planning)))
        writer = ChunkWriter(
            self._storage, self._node.replset, options.op_id, options.epoch, self._check
        )
        reader = Reader(
            self._node,
            writer,
            compression=options.compression,
            budget=budget,
            read_clock=read_clock,
            tally=self._tally,
            planners_bytes=planning * PLANNER_BUDGET_BYTES,
            governor=options.governor,
        )
        units: Channel[Unit] = Channel(2 * options.readers)
        gone = self._progressed.gone
        catalogue = iter([entry for entry in begun.catalogue if entry.uuid not in gone])
        remaining = Remaining.after(self._progressed.units)
        ranges = Ranges(self._node, read_clock)
        lanes = None
        # Whoever goes on from a journal reads in ranges: what may kill one after the other must not
        # find each at the same collection's beginning.
        is_first = not self._progressed.keys
        least = planning * PLANNER_BUDGET_BYTES + STREAM_BUDGET_BYTES
        if is_first and options.budget_bytes >= least:
            lanes = Lanes(lambda: _bytes_of(sizing), self._pace_s, options.readers)

        async def plan() -> None:
            async with TaskGroup() as planners:
                for _ in range(planning):
                    planner = Planner(
                        self._node,
                        reader,
                        ranges=ranges,
                        lanes=lanes,
                        budget=budget,
                        remaining=remaining,
                        units=units,
                        on_finished=self._remember_unit,
                        on_gone=self._remember_gone,
                    )
                    planners.create_task(planner.run(catalogue))
            await units.close()

        async with TaskGroup() as group:
            group.create_task(plan())
            for _ in range(options.readers):
                group.create_task(self._read_units(reader, units, ranges))

    async def _read_units(self, reader: Reader, units: Channel[Unit], ranges: Ranges) -> None:
        async for unit in units:
            try:
                try:
                    await self._read_unit(reader, unit)
                except SnapshotLost:
                    # A whole one: what was stored of it is swept, its ranges are read instead.
                    async with aclosing(ranges.of_lost(unit.entry)) as cut:
                        async for part in cut:
                            await self._read_unit(reader, part)
            except CollectionGone:
                self._remember_gone(unit.entry)

    async def _read_unit(self, reader: Reader, unit: Unit) -> None:
        objects = await reader.read_unit(unit)
        finished = finished_unit(unit)
        await self._remember_unit(finished.model_copy(update={"objects": tuple(objects)}))

    def _pace_s(self, size_bytes: int) -> float:
        governor = self._options.governor
        return 0.0 if governor is None else governor.reading_s(size_bytes)

    async def _end_of_reading(self, begun: Begun) -> OpTime:
        """An OpTime at or after everything that was read, fuzzy collections included."""
        hello = await self._node.hello()
        # A read at R waits for prepared transactions and shows those that commit at or before R,
        # while the entries that say so come later: nothing later than the cluster time.
        now = hello.cluster_time if self._node.is_sharded else hello.majority
        read_ats = (
            s.read_at for u in self._progressed.units for o in u.objects for s in o.segments
        )
        return max(now, begun.catalogue_at, *read_ats)

    def _prove_drops(self) -> None:
        """A collection that vanished while it was read must have been dropped in the span."""
        dropped = {uuid for archived in self._progressed.slices for uuid in archived.dropped}
        for uuid in self._progressed.gone - dropped:
            begun = self._progressed.begun
            ns = next((e.ns for e in begun.catalogue if e.uuid == uuid), uuid) if begun else uuid
            raise IntegrityError(
                f"{ns} vanished while it was read, and the oplog does not say that it was dropped"
            )

    async def _size(self, begun: Begun) -> Sizes:
        return await total_sizes(self._node, {e.ns.partition(".")[0] for e in begun.catalogue})

    async def _keep_reporting(self, sizing: asyncio.Task[Sizes]) -> None:
        total = await sizing
        while not await _within(self._is_read, REPORT_EVERY_S):
            await self._tell("reading", total.bytes, total.documents)
        await self._tell("archiving", 0, 0)

    async def _tell(self, stage: str, total_bytes: int, total_documents: int) -> None:
        """Report progress; that the control database cannot be reached now is no reason to stop
        reading (losing the lease is, and the lease says so itself)."""
        tally = self._tally
        try:
            await self._report(
                Progress(
                    stage=stage,
                    bytes_done=tally.bytes,
                    bytes_total=max(total_bytes, tally.bytes),
                    documents_done=tally.documents,
                    documents_total=max(total_documents, tally.documents),
                )
            )
        except Transient:
            return


def least_budget(planning: int) -> int:
    """What so many planners and one reader need at once. Planners hold their share while readers
    make room for them, so with less neither could go on."""
    return planning * PLANNER_BUDGET_BYTES + UNIT_BUDGET_BYTES


def planners_within(budget_bytes: int) -> int:
    """How many planners a budget allows."""
    return PLANNERS if budget_bytes >= least_budget(PLANNERS) else 1


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event happens within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def _bytes_of(sizing: asyncio.Task[Sizes]) -> int:
    return (await sizing).bytes


def _entry(row: CatalogueRow) -> CollectionEntry:
    return CollectionEntry(
        ns=row.ns,
        uuid=row.uuid,
        options=shared_extended(row.options),
        indexes=tuple(shared_extended(spec) for spec in row.indexes),
    )
