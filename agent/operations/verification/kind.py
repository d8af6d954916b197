"""`ctl verify`: are the objects of backups and archived oplog there, and are they what was written?

All by the lead, beside whatever else runs: it reads, and writes nothing but its ledger and the
verdicts in the catalogue. A lead that takes over begins anew; what was read is in the ledger.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from agent.errors import NotFound, StorageUnavailable
from agent.faults import fault_point
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import opened, profile_of
from agent.operations.verification.checking import Checker, Tally
from agent.operations.verification.ledger import Ledger
from agent.storage.base import Storage
from agent.wire.operations import Kind, Operation
from agent.wire.profiles import MAIN
from agent.wire.specs import VerifySpec
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
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Look, and record a verdict for each backup."""
        spec = VerifySpec.from_document(operation.spec)
        found = _Found(Level.READ if spec.deep else Level.PRESENT)
        for profile, names in (await _by_profile(lead, spec, found)).items():
            async with opened(lead.services, lead.settings, profile) as storage:
                checker = await _checker(lead, operation, spec, storage)
                for name in names:
                    tally = await checker.backup(name)
                    lead.lease.check()
                    await lead.services.catalog.record_verdict(name, tally.verdict(found.level))
                    await fault_point("verify.recorded")
                    found.add(tally)
                    if tally.problems:
                        found.backups.append({"name": name, "harmed": len(tally.problems)})
                        lead.log.error("verify.harmed", backup=name, harmed=len(tally.problems))
                if profile == MAIN and not spec.names:
                    await self._archived(lead, checker, found)
                await checker.ledger.save(storage, operation.name, operation.attempts)
                await fault_point("verify.ledger_saved")
        return found.to_result()

    async def _archived(self, lead: LeadContext, checker: Checker, found: _Found) -> None:
        runs = await lead.services.runs.runs()
        for replset in sorted({run.replset for run in runs}):
            of_set = [run for run in runs if run.replset == replset]
            tally, lost = await checker.archived(replset, of_set)
            found.add(tally)
            for span in lost:
                named = {"replset": replset, **span.to_document()}
                found.lost.append(named)
                lead.log.error("verify.slices_harmed", **named)


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


async def _by_profile(lead: LeadContext, spec: VerifySpec, found: _Found) -> dict[str, list[str]]:
    """Which backups to look at through which profile; `main` always, for the slices."""
    chosen: dict[str, list[str]] = {} if spec.names else {MAIN: []}
    for backup in await lead.services.catalog.backups():
        if spec.names and backup.id not in spec.names:
            continue
        try:
            profile = await profile_of(lead.services, lead.settings, backup, spec.profile)
        except (NotFound, StorageUnavailable):
            if spec.names:
                raise
            found.out_of_reach.append(backup.id)
            continue
        chosen.setdefault(profile, []).append(backup.id)
        found.verified += 1
    return chosen


async def _checker(
    lead: LeadContext, operation: Operation, spec: VerifySpec, storage: Storage
) -> Checker:
    now = operation.requested_at
    max_age = timedelta(seconds=spec.max_age_s)
    ledger = await Ledger.read(storage, now=now, max_age=max_age if spec.deep else timedelta())
    return Checker(storage, ledger, spec.deep, lead.lease.check)
