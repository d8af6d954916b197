"""`ctl config --force-resync`: the catalogue rebuilt from what storage holds, and nothing else."""

from __future__ import annotations

from typing import Any

from agent.errors import IntegrityError
from agent.operations.chains import archived_replsets, restore_runs
from agent.operations.context import LeadContext, PartContext
from agent.operations.inventory import published_names, read_backup
from agent.operations.repository import read_marker
from agent.storage.base import Storage
from agent.wire.operations import Kind, Operation
from agent.wire.timelines import Run


class ResyncKind:
    """All by the lead."""

    kind = Kind.RESYNC

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """Nothing to choose: reading is allowed on any repository."""
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Publish in the catalogue what storage publishes, withdraw the rest. A backup whose
        document is harmed stays as the catalogue has it, and is named in the result."""
        storage = await lead.services.open_storage(lead.settings, "main")
        unreadable: list[str] = []
        try:
            await read_marker(storage)
            names = await published_names(storage)
            known = {backup.id for backup in await lead.services.catalog.backups()}
            for name in names:
                try:
                    backup = await read_backup(storage, name)
                except IntegrityError:
                    unreadable.append(name)
                    continue
                if backup is not None:
                    lead.lease.check()
                    await lead.services.catalog.publish_backup(backup)
            for name in sorted(known - set(names)):
                lead.lease.check()
                await lead.services.catalog.withdraw_backup(name)
            runs = await _restore_runs(lead, storage)
        finally:
            await storage.aclose()
        return {
            "backups": len(names) - len(unreadable),
            "withdrawn": sorted(known - set(names)),
            "unreadable": unreadable,
            "oplog_ranges": len(runs),
        }


async def _restore_runs(lead: LeadContext, storage: Storage) -> list[Run]:
    """The archived oplog of every replica set here or on the storage."""
    known = {run.replset for run in await lead.services.runs.runs()}
    found: list[Run] = []
    for replset in sorted({*known, *await archived_replsets(storage)}):
        found += await restore_runs(lead.services.runs, storage, replset, check=lead.lease.check)
    return found
