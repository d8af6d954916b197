"""The run of slices that a slicer adds to: which one it goes on with, and when another begins.

A run is what links from its first slice to its last. Whoever takes over goes on with the newest,
after the last slice on storage that links to it, noted in the control database or not. Where that
cannot be (the oplog rolled over, what was archived was rolled back, the replica set was restored
or the cluster rebuilt) the hole is recorded with its cause, a new run begins, and a new base is
asked for if the settings say so.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

import structlog

from agent.archive.manifest import SliceRef
from agent.coordination.lease import HeldLease
from agent.errors import OplogForked, OplogOverrun, Superseded
from agent.operations.authenticity import is_own
from agent.operations.bases import ask_for_base, first_base
from agent.operations.chains import restore_runs
from agent.operations.context import Services
from agent.operations.slices import keys_after, read_slice_ref
from agent.replay.commands import KNOWN
from agent.storage.base import Storage
from agent.wire.optime import ZERO, OpTime
from agent.wire.settings import Settings
from agent.wire.timelines import RESHAPING, Gap, GapCause, Run

_RESHAPED: Final = "no backup before it reaches past it: take a new one"
_REBUILT: Final = frozenset(RESHAPING.values())

log = structlog.stdlib.get_logger()


class Reshaped(Superseded):
    """The cluster was rebuilt in a way that ends the run."""


def report_unknown(replset: str, ref: SliceRef) -> None:
    """Say now, not at the restore, that a slice holds what no replay here understands."""
    unknown = sorted(set(ref.commands) - KNOWN - RESHAPING.keys())
    if unknown:
        log.error(
            "oplog.unknown_command",
            replset=replset,
            commands=unknown,
            key=ref.key,
            hint="take a new backup: earlier ones can be restored up to this moment only",
        )


class RunKeeper:
    """Keeps the runs of this agent's replica set."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replset = services.node.replset

    async def end(self, run: Run, ref: SliceRef, cause: GapCause) -> None:
        """Close the run before a slice in which the cluster was rebuilt. Raises `Reshaped`: another
        run is begun by whoever slices next."""
        log.error("oplog.gap_recorded", replset=self._replset, cause=cause, error=_RESHAPED)
        await self._record_gap(run.span.end, max(run.span.end, ref.end), cause, _RESHAPED)
        await self._services.runs.save(run.model_copy(update={"sealed": True}))
        raise Reshaped(f"{cause}: a new run of slices begins")

    async def continued(
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
            return await self._begun_at_base(settings, epoch, repository)
        last = runs[-1]
        if last.sealed:
            known = [gap for gap in await store.gaps() if gap.replset == self._replset]
            why = next((g for g in known if g.start == last.span.end and g.cause in _REBUILT), None)
            if why is not None:
                run = await self._begun_without_base(settings, epoch, repository)
                cause, words = why.cause, why.message
            else:
                run = await self._begun_at_base(settings, epoch, repository)
                cause, words = GapCause.RESTORE, "restored since"
            await self._record_gap(last.span.end, run.start, cause, words)
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

    async def _begun(self, epoch: int, repository: str | None, start: OpTime) -> Run:
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

    async def broken(
        self, settings: Settings, run: Run, epoch: int, error: OplogOverrun | OplogForked
    ) -> Run:
        """A run cannot be continued: say so where everybody looks, and begin another."""
        if isinstance(error, OplogOverrun):
            cause = GapCause.OVERRUN
            begun = await self._begun_at_base(settings, epoch, run.repository_id)
        else:
            cause = GapCause.ROLLBACK
            begun = await self._begun_without_base(settings, epoch, run.repository_id)
        log.error("oplog.gap_recorded", replset=self._replset, cause=cause, error=str(error))
        await self._record_gap(run.span.end, begun.start, cause, str(error))
        return begun

    async def _begun_at_base(self, settings: Settings, epoch: int, repository: str | None) -> Run:
        """A new run that carries on the newest backup, where there is one that the oplog still
        reaches: it may have been taken while nobody sliced."""
        base = await first_base(self._services)
        if base is None:
            return await self._begun_without_base(settings, epoch, repository)
        return await self._begun(epoch, repository, base)

    async def _begun_without_base(
        self, settings: Settings, epoch: int, repository: str | None
    ) -> Run:
        """A new run from now on. It can be restored from only with a backup in it."""
        start = await self._services.node.committed()
        run = await self._begun(epoch, repository, start)
        if settings.pitr.auto_base:
            await ask_for_base(self._services)
        return run

    async def _record_gap(self, start: OpTime, end: OpTime, cause: GapCause, message: str) -> None:
        gap = Gap(
            replset=self._replset, start=start, end=max(end, ZERO), cause=cause, message=message
        )
        await self._services.runs.record_gap(gap)
