"""Point-in-time recovery: one agent of each replica set archives its oplog, all the time.

A slice closes after a span (10 s) or a size, so that what a disaster can lose is about that span.
On an idle replica set nothing worth keeping happens (the server's own no-ops, our heartbeats), and
then no slice closes for a long span, but coverage still advances: the run says up to where nothing
was missed.

Who slices is decided by the slicer lease of the replica set; backups, other profiles and other
replica sets have no part in it. All agents look at the same moments, when settings change, when the
slicer gives up its lease in order and when a lease lapses, so that the best of them bids first, the
next a moment later. Whoever takes over goes on from the last slice on storage that
links to the run, noted in the control database or not, and the oplog itself proves that nothing
lies between. If it cannot, because the oplog rolled over, or what was archived was rolled back, or
the replica set was restored, the hole is recorded with its cause and a new run begins.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from agent.archive.codec import Compression
from agent.archive.manifest import SliceRef
from agent.archive.vault import write_for
from agent.clock import jittered
from agent.coordination.election import bid_delay_s, rank
from agent.coordination.lease import HeldLease, hold
from agent.coordination.wakeup import Wakeup
from agent.errors import (
    OplogForked,
    OplogOverrun,
    Superseded,
    TidelogError,
    Transient,
)
from agent.faults import fault_point
from agent.mongo.oplog import Position
from agent.operations.archiver import OplogArchiver, Slice
from agent.operations.arrears import Arrears
from agent.operations.authenticity import is_own
from agent.operations.bases import ask_for_base, first_base
from agent.operations.chains import restore_runs
from agent.operations.context import Services
from agent.operations.copies import opened
from agent.operations.repository import claimed
from agent.operations.slices import keys_after, read_slice_ref
from agent.replay.commands import KNOWN
from agent.storage.base import Storage
from agent.store.command_queue import CommandQueue
from agent.wire.leases import slicer_scope
from agent.wire.nodes import NodeStatus
from agent.wire.optime import ZERO, OpTime
from agent.wire.profiles import MAIN
from agent.wire.settings import Settings
from agent.wire.timelines import RESHAPING, Gap, GapCause, Run, reshaped_by

READ_EVERY_S: Final = 1.0
CONTROL_EVERY_S: Final = 5.0
"""How often settings, restores and the run's document are looked at or written."""
OWNER_EVERY_S: Final = 60.0
"""How often it is made sure that no other cluster has adopted the repository."""
LOOK_EVERY_S: Final = 3.0
"""How often an agent that does not slice looks whether it should."""
LOOK_WHEN_OFF_S: Final = 6.0
"""The same while slicing is switched off; being switched on wakes it."""
LAPSED_S: Final = 0.1
"""How long after a lease lapses it is looked at."""
IDLE_SPAN_S: Final = 600.0
IDLE_SHARD_SPAN_S: Final = 60.0
"""Of one in a sharded cluster: the storage alone, without the control database, shows the others'
writes as restorable only as far as it shows this one covered."""
BACK_OFF_S: Final = 10.0
_RESHAPED: Final = "no backup before it reaches past it: take a new one"
_REBUILT: Final = frozenset(RESHAPING.values())
DEFAULT_PRIORITY: Final = 1.0
"""Of nodes that `pitr.priority` does not name, as soon as it names one."""

log = structlog.stdlib.get_logger()


class Reshaped(Superseded):
    """The cluster was rebuilt in a way that ends the run."""


@dataclass(slots=True)
class _Turn:
    """One agent's time as the slicer."""

    held: HeldLease
    settings: Settings
    version: int
    storage: Storage
    run: Run


class Slicer:
    """This agent's share in slicing its replica set: `run` is for the agent's task group."""

    def __init__(self, services: Services, commands: CommandQueue, wakeup: Wakeup) -> None:
        """`wakeup` is woken when settings change."""
        self._services = services
        self._commands = commands
        self._wakeup = wakeup
        self._arrears = Arrears(services)
        self._look_after_s = LOOK_EVERY_S
        self._replset = services.node.replset
        self._idle_span_s = IDLE_SHARD_SPAN_S if services.node.is_sharded else IDLE_SPAN_S
        self._has_run = False
        """Whether this turn got so far that its errors can be told of the run."""

    async def run(self) -> None:
        """Slice whenever it is this agent's turn, for ever. Errors are recorded on the run and
        tried again: the oplog keeps what could not be stored yet."""
        while True:
            self._wakeup.clear()
            self._look_after_s = jittered(LOOK_WHEN_OFF_S)
            try:
                await self._take_turn()
            except Superseded as error:
                log.info("slicer.superseded", replset=self._replset, error=str(error))
            except Transient as error:
                log.warning("slicer.held_up", replset=self._replset, error=str(error))
                await self._arrears.note(error, is_of_run=self._has_run)
            except TidelogError as error:
                log.error("slicer.failed", replset=self._replset, error=str(error), hint=error.hint)
                await self._arrears.note(error, is_of_run=self._has_run)
                await self._services.clock.sleep(BACK_OFF_S)
            await self._wakeup.wait(self._look_after_s)

    async def _take_turn(self) -> None:
        services = self._services
        self._has_run = False
        settings, version = await services.settings.read()
        if not settings.pitr.enabled or settings.storage is None:
            return
        self._look_after_s = jittered(LOOK_EVERY_S)
        if await self._is_restoring() or await self._is_out_of_place() or await self._is_held():
            return
        order = rank(await self._candidates(settings))
        if services.node.id not in order:
            return
        await services.clock.sleep(bid_delay_s(order.index(services.node.id)))
        lease = await services.leases.acquire(slicer_scope(self._replset), services.node.id)
        if lease is None:
            return
        async with (
            hold(services.leases, lease, services.clock) as held,
            opened(services, settings, MAIN) as storage,
        ):
            marker = await claimed(services, settings, MAIN, storage)
            await write_for(storage, "pitr", self._replset)
            run = await self._continued(settings, storage, held, marker.repository_id)
            await services.runs.note_trouble(self._replset, None)
            self._has_run = True
            await self._slice(_Turn(held, settings, version, storage, run))
        await self._commands.wake()

    async def _is_held(self) -> bool:
        """Whether somebody slices; the next look is when that lapses, if nothing renews it."""
        lease = await self._services.leases.read(slicer_scope(self._replset))
        if lease is None or lease.owner is None or lease.remaining_s <= 0:
            return False
        self._look_after_s = min(self._look_after_s, lease.remaining_s + LAPSED_S)
        return True

    async def _candidates(self, settings: Settings) -> list[NodeStatus]:
        """The agents of this replica set, with `pitr.priority` in place of `backup.priority`."""
        chosen = settings.pitr.priority
        found = [
            node for node in await self._services.nodes.live() if node.replset == self._replset
        ]
        if not chosen:
            return found
        return [
            node.model_copy(update={"priority": chosen.get(node.host, DEFAULT_PRIORITY)})
            for node in found
        ]

    async def _is_out_of_place(self) -> bool:
        """Whether there is nothing to archive: the replica set was a shard and is none any more, or
        these are config servers while a collection is being resharded."""
        cluster = self._services.cluster
        if (await cluster.topology()).of(self._replset) is None:
            return True
        return self._services.node.is_config and bool(await cluster.resharding())

    async def _is_restoring(self) -> bool:
        return any(op.kind.writes_data for op in await self._services.operations.active())

    async def _slice(self, turn: _Turn) -> None:
        """Archive until settings change, a restore begins or the lease is lost."""
        log.info("slicer.started", replset=self._replset, start=str(turn.run.end))
        clock = self._services.clock
        archiver = self._archiver(turn)
        began = looked = owned = clock.monotonic()
        while True:
            turn.held.check()
            try:
                await archiver.read()
            except (OplogOverrun, OplogForked) as error:
                await self._break(turn, error)
                archiver = self._archiver(turn)
            now = clock.monotonic()
            if not archiver.pending_bytes:
                began = now
            span = (
                turn.settings.pitr.oplog_span_s if archiver.pending_matters else self._idle_span_s
            )
            if now - began >= span:
                await archiver.close()
                began = now
            if now - looked >= CONTROL_EVERY_S or self._wakeup.is_set:
                looked = now
                self._wakeup.clear()
                if not archiver.pending_matters:
                    await self._note(turn, covered_until=archiver.position.optime, error=None)
                if (words := await self._arrears.low_window(turn.run)) is not None:
                    await self._note(turn, error=words)
                if await self._should_end(turn):
                    await archiver.close()
                    return
            if now - owned >= OWNER_EVERY_S:
                owned = now
                await claimed(self._services, turn.settings, MAIN, turn.storage)
            await clock.sleep(READ_EVERY_S)

    async def _note(self, turn: _Turn, **changes: OpTime | str | None) -> None:
        turn.run = turn.run.model_copy(update=changes)
        await self._services.runs.save(turn.run)

    async def _should_end(self, turn: _Turn) -> bool:
        _, version = await self._services.settings.read()
        return version != turn.version or await self._is_restoring()

    def _archiver(self, turn: _Turn) -> OplogArchiver:
        pitr = turn.settings.pitr
        level = pitr.compression_level or turn.settings.backup.compression_level
        run = turn.run

        async def remember(archived: Slice) -> None:
            turn.held.check()
            ref = archived.ref
            cause = reshaped_by(ref.commands)
            if cause is not None:
                await self._end_run(turn.run, ref, cause)
            self._report_unknown(ref)
            turn.run = turn.run.with_slice(
                ref.key, ref.sha256, ref.end, ref.end_term, ref.size_bytes
            )
            await self._services.runs.save(turn.run)
            await fault_point("oplog.run_recorded")

        return OplogArchiver(
            self._services.node,
            turn.storage,
            compression=Compression("none" if pitr.compression == "none" else "zstd", level),
            epoch=turn.held.epoch,
            position=Position(run.end, run.end_term),
            previous_sha256=run.last_sha256,
            on_slice=remember,
        )

    async def _end_run(self, run: Run, ref: SliceRef, cause: GapCause) -> None:
        """Close the run before a slice in which the cluster was rebuilt. Raises `Reshaped`: another
        run is begun by whoever slices next."""
        log.error("oplog.gap_recorded", replset=self._replset, cause=cause, error=_RESHAPED)
        await self._record_gap(run.span.end, max(run.span.end, ref.end), cause, _RESHAPED)
        await self._services.runs.save(run.model_copy(update={"sealed": True}))
        raise Reshaped(f"{cause}: a new run of slices begins")

    def _report_unknown(self, ref: SliceRef) -> None:
        """Say now, not at the restore, that a slice holds what no replay here understands."""
        unknown = sorted(set(ref.commands) - KNOWN - RESHAPING.keys())
        if unknown:
            log.error(
                "oplog.unknown_command",
                replset=self._replset,
                commands=unknown,
                key=ref.key,
                hint="take a new backup: earlier ones can be restored up to this moment only",
            )

    async def _continued(
        self, settings: Settings, storage: Storage, held: HeldLease, repository: str
    ) -> Run:
        """The run to go on with: the last one in this repository, with the slices that its writer
        stored but did not live to note; a new one where there is none or a restore sealed it.
        Where the control database knows of none, storage is asked."""
        store, epoch = self._services.runs, held.epoch
        runs = [run for run in await store.runs(self._replset) if run.is_in(repository)]
        if not runs:
            runs = await restore_runs(store, storage, self._replset, repository, check=held.check)
        if not runs:
            base = await first_base(self._services)
            if base is None:
                await self._ask_for_base(settings)
            return await self._begun(epoch, repository, base)
        last = runs[-1]
        if last.sealed:
            known = [gap for gap in await store.gaps() if gap.replset == self._replset]
            why = next((g for g in known if g.start == last.span.end and g.cause in _REBUILT), None)
            run = await self._begun(epoch, repository)
            cause, words = (why.cause, why.message) if why else (GapCause.RESTORE, "restored since")
            await self._record_gap(last.span.end, run.start, cause, words)
            await self._ask_for_base(settings)
            return run
        run = last.model_copy(
            update={
                "epoch": epoch,
                "node": self._services.node.id,
                "repository_id": repository,
            }
        )
        if run.last_sha256 is None:
            # Nothing says which slice would be this run's first: a backup's own may begin there
            # too, and goes when the backup is deleted.
            await self._services.runs.save(run)
            return run
        found = keys_after(storage, self._replset, run.end, after=run.last_key)
        async with aclosing(found) as slices:
            async for item, span in slices:
                if span.start != run.end:
                    continue
                ref = await read_slice_ref(storage, item.key)
                if ref.previous_sha256 == run.last_sha256 and await is_own(storage, ref):
                    run = run.with_slice(ref.key, ref.sha256, ref.end, ref.end_term, ref.size_bytes)
        await self._services.runs.save(run)
        return run

    async def _begun(self, epoch: int, repository: str | None, start: OpTime | None = None) -> Run:
        if start is None:
            start = (await self._services.node.hello()).majority
        run = Run(
            id=f"{self._replset}/{start.key}/{epoch}",
            replset=self._replset,
            repository_id=repository,
            start=start,
            end=start,
            covered_until=start,
            epoch=epoch,
            node=self._services.node.id,
        )
        await self._services.runs.save(run)
        return run

    async def _break(self, turn: _Turn, error: OplogOverrun | OplogForked) -> None:
        """The run cannot be continued: say so where everybody looks, and begin another."""
        cause = GapCause.OVERRUN if isinstance(error, OplogOverrun) else GapCause.ROLLBACK
        old = turn.run
        turn.run = await self._begun(turn.held.epoch, old.repository_id)
        log.error("oplog.gap_recorded", replset=self._replset, cause=cause, error=str(error))
        await self._record_gap(old.span.end, turn.run.start, cause, str(error))
        await self._ask_for_base(turn.settings)

    async def _ask_for_base(self, settings: Settings) -> None:
        """A new run can be restored from only with a backup in it."""
        if settings.pitr.auto_base:
            await ask_for_base(self._services)

    async def _record_gap(self, start: OpTime, end: OpTime, cause: GapCause, message: str) -> None:
        gap = Gap(
            replset=self._replset, start=start, end=max(end, ZERO), cause=cause, message=message
        )
        await self._services.runs.record_gap(gap)
