"""`ctl export`: a backup, at its end or a later moment, as a directory that `mongorestore` reads.

Chunks alone are of no single moment, so a scratch server is restored to it, and dumped from. The
lead does all; one that takes over begins anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import profile_of
from agent.operations.exporting.directory import checked_target, dump, placed
from agent.operations.scratch.place import Place
from agent.operations.scratch.restoring import restored
from agent.wire.operations import Kind, Operation
from agent.wire.specs import ExportSpec, RestoreSpec


class ExportKind:
    """Exports, one backup each."""

    kind = Kind.EXPORT

    def __init__(self, place: Place, root: Path | None) -> None:
        self._place = place
        self._root = root

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup must exist, the directory be allowed and empty, and a server can be had."""
        spec = ExportSpec.from_document(operation.spec)
        await lead.services.catalog.backup(spec.name)
        checked_target(self._root, spec.directory)
        self._place.root()
        self._place.program()
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Restore, dump, move into place."""
        spec = ExportSpec.from_document(operation.spec)
        target = checked_target(self._root, spec.directory)
        backup = await lead.services.catalog.backup(spec.name)
        profile = await profile_of(lead.services, lead.settings, backup, spec.profile)
        wanted = RestoreSpec(backup=spec.name, time=spec.time, ns=spec.ns, profile=profile)
        async with placed(target, operation.id) as directory:
            async with restored(lead, operation, self._place, wanted, profile) as found:
                written = await dump(found.node, directory)
            lead.lease.check()
        lead.log.info("export.written", path=str(target), size_bytes=written.bytes)
        return {
            "backup": spec.name,
            "node": lead.services.node.id,
            "directory": str(target),
            "exported_to": found.plan.until.to_json(),
            "collections": written.collections,
            "bytes": written.bytes,
        }
