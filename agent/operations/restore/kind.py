"""`ctl restore`: one replica set's share a part, each carried out by the agent of its primary."""

from __future__ import annotations

from typing import Any

from agent.archive.manifest import SliceRef
from agent.errors import ConfigError
from agent.operations.context import LeadContext, PartContext, Services
from agent.operations.restore.catalogue import base_catalogue
from agent.operations.restore.further import further_slices
from agent.operations.restore.plan import (
    Plan,
    assign,
    chosen_slices,
    read_backup,
    read_manifest,
)
from agent.operations.restore.preflight import (
    Item,
    check_commands,
    check_slices,
    find_objects,
    wanted_objects,
)
from agent.operations.restore.selecting import resolve, scope_of
from agent.operations.restore.work import RestoreWork
from agent.storage.base import Storage
from agent.wire.operations import Kind, Operation, State
from agent.wire.optime import OpTime
from agent.wire.specs import RestoreSpec

PROFILE = "main"
LOAD_BYTES_A_S = 20 << 20
OPERATIONS_A_S = 20_000


class RestoreKind:
    """Restores from logical backups."""

    kind = Kind.RESTORE

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup exists, its replica sets have a place here, and the names are in it."""
        spec = RestoreSpec.from_document(operation.spec)
        storage = await lead.services.open_storage(lead.settings, PROFILE)
        try:
            plans = await make_plans(lead.services, storage, spec, [lead.services.node.replset])
            for plan in plans.values():
                check_slices(plan)
                check_commands(plan.slices)
                await resolve(storage, plan, scope_of(spec, plan.backup))
        finally:
            await storage.aclose()
        return [] if spec.dry_run else sorted(plans)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """Parts do not wait for each other."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Restore this replica set, or go on where another worker stopped."""
        spec = RestoreSpec.from_document(part.operation.spec)
        storage = await part.services.open_storage(part.settings, PROFILE)
        try:
            plans = await make_plans(part.services, storage, spec, [part.replset])
            return await RestoreWork(part, storage, spec, plans[part.replset]).run()
        finally:
            await storage.aclose()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Record the restore; or answer the plan that a dry run is for."""
        spec = RestoreSpec.from_document(operation.spec)
        if spec.dry_run:
            return {"backup": spec.backup, "plan": await self._describe(lead, spec)}
        until = operation.parts[0].result["restored_to"]
        await lead.services.catalog.save_restore(
            {
                **operation.to_document(),
                "_id": operation.name,
                "op_id": operation.id,
                # The record is written just before the operation itself becomes so.
                "state": State.DONE.value,
                "finished_at": operation.updated_at,
            }
        )
        return {"backup": spec.backup, "restored_to": until}

    async def _describe(self, lead: LeadContext, spec: RestoreSpec) -> dict[str, Any]:
        storage = await lead.services.open_storage(lead.settings, PROFILE)
        try:
            plans = await make_plans(lead.services, storage, spec, [lead.services.node.replset])
            return {
                "backup": spec.backup,
                "replsets": [
                    await describe(storage, spec, target, plan) for target, plan in plans.items()
                ],
            }
        finally:
            await storage.aclose()


async def make_plans(
    services: Services, storage: Storage, spec: RestoreSpec, targets: list[str]
) -> dict[str, Plan]:
    """What goes to each replica set. Raises `Refused`, `ConfigError`, `IntegrityError`."""
    backup = await read_backup(storage, spec.backup)
    if backup.type != "logical":
        raise ConfigError(f"the backup {backup.id} is {backup.type}, not logical")
    plans: dict[str, Plan] = {}
    for target, share in assign(backup, targets, spec.replset_remapping).items():
        manifest = await read_manifest(storage, share)
        further: tuple[SliceRef, ...] = ()
        idle_until: OpTime | None = None
        if spec.time is not None and spec.time > manifest.last_write:
            further = await further_slices(
                storage, share.replset, since=manifest.last_write, until=spec.time
            )
            reached = further[-1].end if further else manifest.last_write
            if backup.cluster_id == services.cluster_id:
                idle_until = await _idle_until(services, share.replset, reached)
        slices, until = chosen_slices(manifest, spec.time, further, idle_until)
        plans[target] = Plan(backup, share, manifest, slices, until)
    return plans


async def _idle_until(services: Services, replset: str, reached: OpTime) -> OpTime | None:
    """Up to where the slicer of this cluster found nothing worth storing after `reached`."""
    runs = await services.runs.runs(replset)
    found = [run.covered_until for run in runs if run.start <= reached and run.end <= reached]
    return max(found, default=None)


def estimated_s(load_bytes: int, operations: int) -> int:
    """About how long loading and replaying takes on a small server, in seconds; index builds come
    on top. Rates measured on two cores shared with mongod (docs/operations.md)."""
    return 1 + load_bytes // LOAD_BYTES_A_S + operations // OPERATIONS_A_S


async def describe(storage: Storage, spec: RestoreSpec, target: str, plan: Plan) -> dict[str, Any]:
    """One replica set's plan, for people; proves that every object is there."""
    scope = await resolve(storage, plan, scope_of(spec, plan.backup))
    objects = wanted_objects(plan.manifest, scope)
    items: list[Item] = [*objects, *plan.slices]
    await find_objects(storage, items)
    catalogue = base_catalogue(plan.manifest, scope)
    wanted = {collection.uuid.hex() for collection in catalogue}
    segments = [s for item in objects for s in item.segments if s.uuid in wanted]
    return {
        "replset": target,
        "from": plan.share.replset,
        "restored_to": plan.until.to_json(),
        "collections": len(catalogue),
        "documents": sum(segment.count for segment in segments),
        "bytes": sum(segment.length for segment in segments),
        "stored_bytes": sum(item.size_bytes for item in items),
        "slices": len(plan.slices),
        "operations": sum(item.count for item in plan.slices),
        "estimated_s": estimated_s(
            sum(segment.length for segment in segments), sum(item.count for item in plan.slices)
        ),
        "drops": "everything else" if scope.is_full else "what was named",
    }
