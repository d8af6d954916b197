"""`ctl config --force-resync`, `ctl profile sync`: the catalogue rebuilt from what storage
holds, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agent.errors import Conflict, IntegrityError
from agent.faults import fault_point
from agent.operations.chains import archived_replsets, restore_runs
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import opened
from agent.operations.inventory import is_published, published_names
from agent.operations.listing import list_backup
from agent.operations.repository import looked_at
from agent.storage.base import Storage
from agent.wire.backups import Copy
from agent.wire.operations import Kind, Operation
from agent.wire.profiles import MAIN, storage_of
from agent.wire.specs import ResyncSpec
from agent.wire.timelines import Run


class ResyncKind:
    """All by the lead."""

    kind = Kind.RESYNC

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The profiles must exist; reading is allowed on any repository."""
        for profile in ResyncSpec.from_document(operation.spec).profiles:
            storage_of(lead.settings, profile)
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Publish in the catalogue what storage publishes, withdraw the rest. A backup whose
        document is harmed stays as the catalogue has it, and is named in the result."""
        spec = ResyncSpec.from_document(operation.spec)
        found = [await _resync(lead, profile) for profile in spec.profiles]
        return {
            # One with a copy on each is one backup.
            "backups": len({name for one in found for name in one.backups}),
            "withdrawn": [name for one in found for name in one.withdrawn],
            "unreadable": [name for one in found for name in one.unreadable],
            "conflicting": [name for one in found for name in one.conflicting],
            "oplog_ranges": sum(one.oplog_ranges for one in found),
        }


@dataclass(slots=True)
class _Resynced:
    """What became of one profile."""

    backups: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    conflicting: list[str] = field(default_factory=list)
    """Of the same name as another backup, which is listed already."""
    oplog_ranges: int = 0


async def _resync(lead: LeadContext, profile: str) -> _Resynced:
    """One profile. The oplog is archived in `main` alone."""
    catalog, done = lead.services.catalog, _Resynced()
    async with opened(lead.services, lead.settings, profile) as storage:
        marker = await looked_at(lead.services, lead.settings, profile, storage)
        names = await published_names(storage)
        for name in names:
            lead.lease.check()
            try:
                if await list_backup(catalog, storage, name, profile):
                    done.backups.append(name)
            except IntegrityError as error:
                lead.log.error("resync.unreadable", backup=name, error=str(error))
                done.unreadable.append(name)
            except Conflict:
                done.conflicting.append(name)
            await fault_point("resync.published")
        here = marker.repository_id if marker is not None else None
        for known in await catalog.backups():
            for copy in known.places:
                if not _is_gone(copy, profile, here, known.id in names):
                    continue
                if copy.repository_id == here and await is_published(storage, known.id):
                    continue  # the list is behind: it is there
                lead.lease.check()
                await catalog.withdraw_copy(known.id, copy.repository_id)
                done.withdrawn.append(known.id)
        if profile == MAIN:
            repository = marker.repository_id if marker is not None else None
            done.oplog_ranges = len(await _restore_runs(lead, storage, repository))
    return done


def _is_gone(copy: Copy, profile: str, here: str | None, is_listed: bool) -> bool:
    """Whether a copy is not where the catalogue says. What was written through this profile while
    it led elsewhere is out of reach, and goes as well."""
    if copy.repository_id == here or (here is None and copy.profile == profile):
        return not is_listed
    return copy.profile == profile


async def _restore_runs(
    lead: LeadContext, storage: Storage, repository_id: str | None
) -> list[Run]:
    """The archived oplog of every replica set here or on the storage."""
    runs = lead.services.runs
    known = {run.replset for run in await runs.runs()}
    found: list[Run] = []
    for replset in sorted({*known, *await archived_replsets(storage)}):
        found += await restore_runs(runs, storage, replset, repository_id, check=lead.lease.check)
    return found
