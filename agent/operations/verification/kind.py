"""`ctl verify`: are the objects of backups and archived oplog there, and are they what was written?

One agent does it, beside whatever else runs: it reads, and writes nothing but its ledger and the
verdicts in the catalogue. One that takes over begins anew; what was read is in the ledger. What is
deleted while it looks is not harmed: deletions take it out of the control database first, so what
is missing is asked for there again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from agent.errors import NotFound, StorageUnavailable
from agent.faults import fault_point
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import known_backup, opened, profile_of
from agent.operations.reading import Steps, one_part, result_of
from agent.operations.repository import looked_at
from agent.operations.verification.checking import Checker, Tally
from agent.operations.verification.ledger import Ledger
from agent.storage.base import Storage
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.profiles import MAIN
from agent.wire.specs import VerifySpec
from agent.wire.timelines import Run, Span
from agent.wire.verdicts import Level

_NAMED = 200
"""Harmed objects that the result names; the rest is counted."""


class VerifyKind:
    """Verification of named backups, or of everything."""

    kind = Kind.VERIFY

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backups must exist."""
        spec = VerifySpec.from_document(operation.spec)
        known = {backup.id for backup in await lead.services.catalog.backups()}
        for name in spec.names:
            if name not in known:
                raise NotFound(f"there is no backup {name}", hint="'ctl list' shows what there is")
        return await one_part(lead, operation)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """One part needs nobody."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Look, and record a verdict for each backup."""
        spec = VerifySpec.from_document(part.operation.spec)
        found = _Found(Level.READ if spec.deep else Level.PRESENT)
        chosen = await _by_profile(part, spec, found)
        steps = Steps(part)
        steps.enter(
            "reading" if spec.deep else "looking", bytes_total=await _bytes(part, spec, chosen)
        )
        await steps.during(lambda: _look(part, spec, chosen, steps, found), what="the verification")
        return found.to_result()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """What was found."""
        return result_of(operation)


async def _look(
    part: PartContext,
    spec: VerifySpec,
    chosen: Mapping[str, list[str]],
    steps: Steps,
    found: _Found,
) -> None:
    for profile, names in chosen.items():
        async with opened(part.services, part.settings, profile) as storage:
            checker = await _checker(part, spec, storage, steps)
            for name in names:
                await _backup(part, checker, name, found)
            if profile == MAIN and not spec.names:
                await _archived(part, checker, found)
            refused = await checker.ledger.save(storage, part.operation.name, part.lease.epoch)
            if refused is not None:
                part.log.warning("verify.not_remembered", error=refused)
            await fault_point("verify.ledger_saved")


async def _backup(part: PartContext, checker: Checker, name: str, found: _Found) -> None:
    before = await _places(part, name)
    tally = await checker.backup(name)
    if tally.problems and not (before and before <= await _places(part, name)):
        part.log.info("verify.deleted_meanwhile", backup=name)
        return
    part.lease.check()
    await part.services.catalog.record_verdict(name, tally.verdict(found.level))
    await fault_point("verify.recorded")
    found.add(tally)
    found.verified += 1
    if tally.problems:
        found.backups.append({"name": name, "harmed": len(tally.problems)})
        part.log.error("verify.harmed", backup=name, harmed=len(tally.problems))


async def _places(part: PartContext, name: str) -> set[str]:
    """The repositories that hold a backup, as the catalogue says now."""
    backup = await known_backup(part.services, name)
    return {copy.repository_id for copy in backup.places} if backup is not None else set()


async def _archived(part: PartContext, checker: Checker, found: _Found) -> None:
    marker = await looked_at(part.services, part.settings, MAIN, checker.storage)
    here = marker.repository_id if marker is not None else None
    runs = await part.services.runs.runs()
    for replset in sorted({run.replset for run in runs if run.is_in(here)}):
        tally, lost = await _archived_of(part, checker, replset, here)
        found.add(tally)
        for span in lost:
            named = {"replset": replset, **span.to_document()}
            found.lost.append(named)
            part.log.error("verify.slices_harmed", **named)


async def _archived_of(
    part: PartContext, checker: Checker, replset: str, here: str | None
) -> tuple[Tally, list[Span]]:
    """Looked at until no deletion shortened the runs meanwhile; what was read is not read again."""
    runs = await _runs(part, replset, here)
    while True:
        tally, lost = await checker.archived(replset, runs)
        now = await _runs(part, replset, here)
        if not tally.problems or _starts(now) >= _starts(runs):
            return tally, lost
        runs = now


async def _runs(part: PartContext, replset: str, here: str | None) -> list[Run]:
    """Those whose slices lie in this repository: `main` may have led elsewhere before."""
    return [run for run in await part.services.runs.runs(replset) if run.is_in(here)]


def _starts(runs: Iterable[Run]) -> set[tuple[str, OpTime]]:
    return {(run.id, run.start) for run in runs}


async def _bytes(part: PartContext, spec: VerifySpec, chosen: Mapping[str, list[str]]) -> int:
    """About so much lies there."""
    names = {name for of_profile in chosen.values() for name in of_profile}
    backups = await part.services.catalog.backups()
    total = sum(backup.size_bytes for backup in backups if backup.id in names)
    if not spec.names:
        total += sum(run.size_bytes - run.removed_bytes for run in await part.services.runs.runs())
    return total


class _Found:
    """The sum over all that was looked at."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.sum = Tally()
        self.verified = 0
        self.backups: list[dict[str, Any]] = []
        self.lost: list[dict[str, Any]] = []
        self.out_of_reach: list[str] = []

    def add(self, tally: Tally) -> None:
        self.sum.objects += tally.objects
        self.sum.bytes_read += tally.bytes_read
        self.sum.remembered += tally.remembered
        self.sum.problems |= tally.problems

    def to_result(self) -> dict[str, Any]:
        problems = [{"object": key, "problem": why} for key, why in self.sum.problems.items()]
        return {
            "level": self.level.value,
            "backups": self.verified,
            "objects": self.sum.objects,
            "bytes_read": self.sum.bytes_read,
            "not_read_again": self.sum.remembered,
            "harmed": len(problems),
            "problems": problems[:_NAMED],
            "harmed_backups": self.backups,
            "harmed_ranges": self.lost,
            "out_of_reach": self.out_of_reach,
        }


async def _by_profile(part: PartContext, spec: VerifySpec, found: _Found) -> dict[str, list[str]]:
    """Which backups to look at through which profile; `main` always, for the slices."""
    chosen: dict[str, list[str]] = {} if spec.names else {MAIN: []}
    for backup in await part.services.catalog.backups():
        if spec.names and backup.id not in spec.names:
            continue
        try:
            profile = await profile_of(part.services, part.settings, backup, spec.profile)
        except (NotFound, StorageUnavailable):
            if spec.names:
                raise
            found.out_of_reach.append(backup.id)
            continue
        chosen.setdefault(profile, []).append(backup.id)
    return chosen


async def _checker(part: PartContext, spec: VerifySpec, storage: Storage, steps: Steps) -> Checker:
    now = part.operation.requested_at
    max_age = timedelta(seconds=spec.max_age_s)
    ledger = await Ledger.read(storage, now=now, max_age=max_age if spec.deep else timedelta())
    return Checker(storage, ledger, spec.deep, lambda size: steps.add(bytes_done=size))
