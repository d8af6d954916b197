"""Point-in-time recovery: one agent of each replica set archives its oplog, all the time.

A slice closes after a span (10 s) or a size, so that what a disaster can lose is about that span.
On an idle replica set nothing worth keeping happens (the server's own no-ops, our heartbeats), and
then no slice closes for a long span, but coverage still advances: the run says up to where nothing
was missed.

Who slices is decided by the slicer lease of the replica set; backups, other profiles and other
replica sets have no part in it. All agents look at the same moments (settings change, the slicer
gives up its lease in order, a lease lapses), so that the best of them bids first, the next a moment
later. When a better one has been well for a while, the one that slices makes way
(`agent.operations.succession`). Whoever takes over goes on with the run
(`agent.operations.run_keeping`), and the oplog itself proves that nothing lies between what is
stored and what is read next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from agent.archive.codec import Compression
from agent.archive.vault import write_for
from agent.clock import jittered
from agent.coordination.election import bid_delay_s, rank
from agent.coordination.lease import HeldLease
from agent.coordination.recent_settings import SettingsSource
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
from agent.operations.board import Board
from agent.operations.context import Services
from agent.operations.copies import opened
from agent.operations.repository import claimed
from agent.operations.run_keeping import RunKeeper, report_unknown
from agent.operations.succession import Succession
from agent.storage.base import Storage
from agent.store.command_queue import CommandQueue
from agent.wire.leases import slicer_scope
from agent.wire.nodes import NodeStatus
from agent.wire.operations import Operation
from agent.wire.optime import OpTime
from agent.wire.profiles import MAIN
from agent.wire.settings import Settings
from agent.wire.timelines import Run, reshaped_by

READ_EVERY_S: Final = 5.0
"""How often the oplog is asked for more, at most; a slice is as old as its span all the same."""
_READS_IN_A_SPAN: Final = 2
CONTROL_EVERY_S: Final = 5.0
"""How often settings, restores and the run's document are looked at or written."""
SUCCESSOR_EVERY_S: Final = 10.0
"""How often it is looked whether a better node is there."""
WINDOW_EVERY_S: Final = 30.0
"""How often it is asked how much of the oplog's window is left."""
OWNER_EVERY_S: Final = 60.0
"""How often it is made sure that no other cluster has adopted the repository."""
LOOK_EVERY_S: Final = 5.0
"""How often an agent that does not slice looks whether it should; when the lease lapses, anyway."""
LAPSED_S: Final = 0.1
"""How long after a lease lapses it is looked at."""
IDLE_SPAN_S: Final = 600.0
IDLE_SHARD_SPAN_S: Final = 60.0
"""Of one in a sharded cluster: the storage alone, without the control database, shows the others'
writes as restorable only as far as it shows this one covered."""
BACK_OFF_S: Final = 10.0
DEFAULT_PRIORITY: Final = 1.0
"""Of nodes that `pitr.priority` does not name, as soon as it names one."""

log = structlog.stdlib.get_logger()


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

    def __init__(
        self,
        services: Services,
        settings: SettingsSource,
        board: Board,
        commands: CommandQueue,
        wakeup: Wakeup,
    ) -> None:
        """`wakeup` is woken when settings change."""
        self._services = services
        self._settings = settings
        self._board = board
        self._commands = commands
        self._wakeup = wakeup
        self._arrears = Arrears(services)
        self._runs = RunKeeper(services)
        self._succession = Succession(services.node.id, services.clock)
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
            self._look_after_s = jittered(LOOK_EVERY_S)
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
        settings, version = await self._settings.read()
        if not settings.pitr.enabled or settings.storage is None:
            return
        if await self._is_held() or await self._is_restoring() or await self._is_out_of_place():
            return
        order = rank(await self._candidates(settings))
        if services.node.id not in order:
            return
        if await self._is_told_to_look_again(bid_delay_s(order.index(services.node.id))):
            return
        lease = await services.leases.acquire(slicer_scope(self._replset), services.node.id)
        if lease is None:
            return
        async with (
            services.holder.hold(lease) as held,
            opened(services, settings, MAIN) as storage,
        ):
            marker = await claimed(services, settings, MAIN, storage)
            await write_for(storage, "pitr", self._replset)
            run = await self._runs.continued(settings, storage, held, marker.repository_id)
            await self._arrears.begun()
            self._has_run = True
            await self._slice(_Turn(held, settings, version, storage, run))
        await self._commands.wake()

    async def _is_told_to_look_again(self, within_s: float) -> bool:
        """Whether something happens before it is this agent's moment to bid. Its place may be
        another by then, and a bid by what was would take the lease from whoever is first now."""
        await self._wakeup.wait(within_s)
        return self._wakeup.is_set

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
        return writes_data(await self._services.operations.active())

    async def _slice(self, turn: _Turn) -> None:
        """Archive until settings change, a restore begins, a better node is there or the lease is
        lost."""
        log.info("slicer.started", replset=self._replset, start=str(turn.run.end))
        self._succession.begin()
        clock = self._services.clock
        archiver = self._archiver(turn)
        began = looked = owned = compared = clock.monotonic()
        warned, low = float("-inf"), None
        while True:
            turn.held.check()
            asked = clock.monotonic()
            try:
                await self._arrears.in_step(archiver.read)
            except (OplogOverrun, OplogForked) as error:
                epoch = turn.held.epoch
                turn.run = await self._runs.broken(turn.settings, turn.run, epoch, error)
                archiver = self._archiver(turn)
            now = clock.monotonic()
            if not archiver.pending_bytes:
                began = asked  # whatever comes next was not there yet
            span = (
                turn.settings.pitr.oplog_span_s if archiver.pending_matters else self._idle_span_s
            )
            if now - began >= span:
                await self._arrears.in_step(archiver.close)
                began = asked
            if now - looked >= CONTROL_EVERY_S or self._wakeup.is_set:
                looked = now
                self._wakeup.clear()
                if now - warned >= WINDOW_EVERY_S:
                    warned, low = now, await self._arrears.low_window(turn.run)
                if not archiver.pending_matters:
                    await self._note(turn, covered_until=archiver.position.optime, error=low)
                elif low is not None:
                    await self._note(turn, error=low)
                if await self._should_end(turn):
                    await self._arrears.in_step(archiver.close)
                    return
            if now - compared >= SUCCESSOR_EVERY_S:
                compared = now
                if successor := self._succession.successor(await self._candidates(turn.settings)):
                    await self._arrears.in_step(archiver.close)
                    self._succession.leave()
                    log.info("slicer.handed_over", replset=self._replset, to=successor)
                    return
            if now - owned >= OWNER_EVERY_S:
                owned = now
                await claimed(self._services, turn.settings, MAIN, turn.storage)
            pause_s = min(READ_EVERY_S, turn.settings.pitr.oplog_span_s / _READS_IN_A_SPAN)
            await self._wakeup.wait(pause_s)

    async def _note(self, turn: _Turn, **changes: OpTime | str | None) -> None:
        turn.run = turn.run.model_copy(update=changes)
        await self._services.runs.save(turn.run)

    async def _should_end(self, turn: _Turn) -> bool:
        _, version = await self._settings.read()
        return version != turn.version or writes_data(self._board.operations.values())

    def _archiver(self, turn: _Turn) -> OplogArchiver:
        pitr = turn.settings.pitr
        level = pitr.compression_level or turn.settings.backup.compression_level
        run = turn.run

        async def remember(archived: Slice) -> None:
            turn.held.check()
            ref = archived.ref
            cause = reshaped_by(ref.commands)
            if cause is not None:
                await self._runs.end(turn.run, ref, cause)
            report_unknown(self._replset, ref)
            turn.run = turn.run.with_slice(
                ref.key, ref.sha256, ref.end, ref.end_term, ref.size_bytes
            )
            await self._services.runs.save(turn.run)
            await self._arrears.got_on()
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


def writes_data(operations: Iterable[Operation]) -> bool:
    """Whether data is being changed by us, or will be at any moment. One that waits in line behind
    a backup, perhaps for hours, changes nothing yet, and a dry run never does."""
    return any(
        op.kind.writes_data and not op.queued and not op.spec.get("dry_run") for op in operations
    )
