"""`ctl restore`: one replica set's share a part, each carried out by the agent of its primary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from agent.archive.manifest import SliceRef
from agent.errors import ConfigError
from agent.operations.context import LeadContext, PartContext, Services
from agent.operations.copies import known_backup, opened, profile_of
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
from agent.storage.routed import Routed
from agent.wire.operations import Kind, Operation, State
from agent.wire.optime import OpTime
from agent.wire.profiles import MAIN
from agent.wire.settings import Settings
from agent.wire.specs import RestoreSpec

PROFILE: Final = "profile"
"""Field of the result: where the backup is taken from, chosen once."""
LOAD_BYTES_A_S = 20 << 20
OPERATIONS_A_S = 20_000


class RestoreKind:
    """Restores from logical backups."""

    kind = Kind.RESTORE

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup exists, its replica sets have a place here, and the names are in it."""
        spec = RestoreSpec.from_document(operation.spec)
        services, settings = lead.services, lead.settings
        profile = await _profile(services, settings, spec)
        async with sources(services, settings, profile, spec) as found:
            plans = await make_plans(services, found, spec, [services.node.replset])
            for plan in plans.values():
                check_slices(plan)
                check_commands(plan.slices)
                await resolve(found.base, plan, scope_of(spec, plan.backup))
        await services.operations.merge_result(operation.id, lead.lease.epoch, {PROFILE: profile})
        return [] if spec.dry_run else sorted(plans)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """Parts do not wait for each other."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Restore this replica set, or go on where another worker stopped."""
        spec = RestoreSpec.from_document(part.operation.spec)
        profile = part.operation.result.get(PROFILE, MAIN)
        async with sources(part.services, part.settings, profile, spec) as found:
            plans = await make_plans(part.services, found, spec, [part.replset])
            plan = plans[part.replset]
            return await RestoreWork(part, found.of(plan), spec, plan).run()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Record the restore; or answer the plan that a dry run is for."""
        spec = RestoreSpec.from_document(operation.spec)
        if spec.dry_run:
            profile = operation.result.get(PROFILE, MAIN)
            return {"backup": spec.backup, "plan": await self._describe(lead, spec, profile)}
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

    async def _describe(self, lead: LeadContext, spec: RestoreSpec, profile: str) -> dict[str, Any]:
        async with sources(lead.services, lead.settings, profile, spec) as found:
            plans = await make_plans(lead.services, found, spec, [lead.services.node.replset])
            return {
                "backup": spec.backup,
                "profile": profile,
                "replsets": [
                    await describe(found.of(plan), spec, target, plan)
                    for target, plan in plans.items()
                ],
            }


@dataclass(frozen=True, slots=True)
class Sources:
    """What a restore reads: the storage of the backup, and that of the slices after it."""

    base: Storage
    slices: Storage | None
    """`main`, where a later moment than the backup's own is wanted."""

    def of(self, plan: Plan) -> Storage:
        """Both as one, for what this plan needs."""
        if self.slices is None or self.slices is self.base:
            return self.base
        own = {item.key for item in plan.manifest.slices}
        return Routed(
            self.base, self.slices, (item.key for item in plan.slices if item.key not in own)
        )


@asynccontextmanager
async def sources(
    services: Services, settings: Settings, profile: str, spec: RestoreSpec
) -> AsyncIterator[Sources]:
    """The storages that a restore needs, closed at the end. `main` is not asked for anything where
    the backup lies elsewhere and is wanted as it is."""
    async with opened(services, settings, profile) as base:
        if spec.time is None or profile == MAIN:
            yield Sources(base, base)
            return
        async with opened(services, settings, MAIN) as main:
            yield Sources(base, main)


async def _profile(services: Services, settings: Settings, spec: RestoreSpec) -> str:
    """Where the backup is taken from. One that the catalogue does not know is looked for by name
    in the repository of the profile asked for, else in `main`."""
    backup = await known_backup(services, spec.backup)
    if backup is None:
        return spec.profile or MAIN
    return await profile_of(services, settings, backup, spec.profile)


async def make_plans(
    services: Services, found: Sources, spec: RestoreSpec, targets: list[str]
) -> dict[str, Plan]:
    """What goes to each replica set. Raises `Refused`, `ConfigError`, `IntegrityError`."""
    backup = await read_backup(found.base, spec.backup)
    if backup.type != "logical":
        raise ConfigError(f"the backup {backup.id} is {backup.type}, not logical")
    plans: dict[str, Plan] = {}
    for target, share in assign(backup, targets, spec.replset_remapping).items():
        manifest = await read_manifest(found.base, share)
        further: tuple[SliceRef, ...] = ()
        idle_until: OpTime | None = None
        if spec.time is not None and spec.time > manifest.last_write:
            further = await further_slices(
                found.slices or found.base,
                share.replset,
                since=manifest.last_write,
                until=spec.time,
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
