"""`ctl export`: a backup, at its end or a later moment, as a directory that `mongorestore` reads.

Chunks alone are of no single moment, so scratch servers are restored to it, and dumped from: of a
sharded cluster one after the other into one directory, as a router would show it. One agent does
all; one that takes over begins anew.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import profile_of
from agent.operations.exporting.directory import Written, checked_target, dump, placed
from agent.operations.exporting.shares import ClusterShare, Share, Tables, Whole
from agent.operations.reading import Steps, check_stays, one_part, result_of
from agent.operations.scratch.place import Place
from agent.operations.scratch.restoring import Restored, Scratch, planned
from agent.store.cluster import ClusterView
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
            async with planned(part, self._place, wanted, profile) as scratch:
                writer = _Writer(part, directory)
                await writer.run(scratch)
            part.lease.check()
        part.log.info("export.written", path=str(target), size_bytes=writer.written.bytes)
        return {
            "backup": spec.name,
            "node": part.services.node.id,
            "directory": str(target),
            "exported_to": scratch.plans[0].until.to_json(),
            "collections": writer.written.collections,
            "bytes": writer.written.bytes,
            "sharded": list(writer.sharded),
            "warnings": writer.warnings,
        }

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """What was written."""
        return result_of(operation)


class _Writer:
    """One dump from one or more scratch servers."""

    def __init__(self, part: PartContext, directory: Path) -> None:
        self.written = Written()
        self.sharded: tuple[dict[str, Any], ...] = ()
        self.warnings: list[str] = []
        self._part = part
        self._directory = directory

    async def run(self, scratch: Scratch) -> None:
        """All of them, the first one's server beside the others."""
        first, *others = scratch.plans
        async with scratch.restored(first) as found:
            if not first.topology.is_sharded:
                await self._write(found, Whole())
                return
            tables = await Tables.read(ClusterView(found.control).routing)
            self.sharded = tables.sharded
            await self._write(found, ClusterShare(first, tables))
            for plan in others:
                async with scratch.restored(plan, routing=found) as of_shard:
                    await self._write(of_shard, ClusterShare(plan, tables))

    async def _write(self, found: Restored, share: Share) -> None:
        plan = found.plan
        where = f"{plan.source}: " if plan.topology.is_sharded else ""
        self.warnings += [where + text for text in found.report["warnings"]]
        steps = Steps(self._part)
        steps.enter(f"{where}writing", bytes_total=plan.manifest.plain_bytes)
        await steps.during(
            partial(
                dump,
                found.node,
                share,
                self._directory,
                self.written,
                lambda size: steps.add(bytes_done=size),
            ),
            what="writing the export",
        )
