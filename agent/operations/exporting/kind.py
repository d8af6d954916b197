"""`ctl export`: a backup, at its end or a later moment, as a directory that `mongorestore` reads.

Chunks alone are of no single moment, so a scratch server is restored to it, and dumped from. One
agent does all; one that takes over begins anew.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from agent.errors import Refused
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import profile_of
from agent.operations.exporting.directory import checked_target, dump, placed
from agent.operations.reading import Steps, check_stays, one_part, result_of
from agent.operations.scratch.place import Place
from agent.operations.scratch.restoring import planned
from agent.wire.operations import Kind, Operation
from agent.wire.specs import ExportSpec, RestoreSpec


class ExportKind:
    """Exports, one backup each."""

    kind = Kind.EXPORT

    def __init__(self, place: Place, root: Path | None) -> None:
        self._place = place
        self._root = root

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup must exist, not be about to go, and an agent be able to write it."""
        spec = ExportSpec.from_document(operation.spec)
        await check_stays(lead, spec.name, spec.time)
        return await one_part(lead, operation)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """One part needs nobody."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Restore, dump, move into place."""
        spec = ExportSpec.from_document(part.operation.spec)
        target = checked_target(self._root, spec.directory)
        self._place.root()
        self._place.program()
        backup = await part.services.catalog.backup(spec.name)
        profile = await profile_of(part.services, part.settings, backup, spec.profile)
        wanted = RestoreSpec(backup=spec.name, time=spec.time, ns=spec.ns, profile=profile)
        async with placed(target, part.operation.id) as directory:
            async with AsyncExitStack() as stack:
                scratch = await stack.enter_async_context(
                    planned(part, self._place, wanted, profile)
                )
                if len(scratch.plans) > 1:
                    raise Refused(
                        f"the backup {backup.id} is of a sharded cluster, and only those of replica"
                        " sets are exported",
                        hint="restore it into a test cluster and dump that",
                    )
                found = await stack.enter_async_context(scratch.restored(scratch.plans[0]))
                steps = Steps(part)
                steps.enter("writing", bytes_total=found.plan.manifest.plain_bytes)
                written = await steps.during(
                    partial(dump, found.node, directory, lambda size: steps.add(bytes_done=size)),
                    what="writing the export",
                )
            part.lease.check()
        part.log.info("export.written", path=str(target), size_bytes=written.bytes)
        return {
            "backup": spec.name,
            "node": part.services.node.id,
            "directory": str(target),
            "exported_to": found.plan.until.to_json(),
            "collections": written.collections,
            "bytes": written.bytes,
        }

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """What was written."""
        return result_of(operation)
