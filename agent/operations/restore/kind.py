"""`ctl restore`: one replica set's share a part, each carried out by the agent of its primary.

Of a sharded cluster every replica set gets a part, also a shard that the backup has nothing for.
Parts wait for each other at two places (see `together`): nothing is touched before all have proven
what they need, and what a shard owns is known when the config servers have their routing tables.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from agent.archive.manifest import SliceRef
from agent.errors import ConfigError
from agent.operations.backup.agreement import check_served
from agent.operations.balancing import keep_still, let_go
from agent.operations.context import LeadContext, PartContext, Services
from agent.operations.copies import known_backup, opened, profile_of
from agent.operations.removal.plan import check_not_doomed
from agent.operations.restore.assigning import assign
from agent.operations.restore.cluster import check_cluster, find_unfinished
from agent.operations.restore.deciding import EVIDENCE, pin_evidence
from agent.operations.restore.describing import describe
from agent.operations.restore.ending import UNFINISHED
from agent.operations.restore.further import further_slices
from agent.operations.restore.plan import (
    Plan,
    chosen_slices,
    nothing,
    read_backup,
    read_manifest,
)
from agent.operations.restore.preflight import (
    check_commands,
    check_quorum,
    check_slices,
    check_versions,
    quorum_of,
)
from agent.operations.restore.selecting import check_found, scope_of
from agent.operations.restore.work import RestoreWork
from agent.storage.base import Storage
from agent.storage.routed import Routed
from agent.wire.operations import Kind, Operation, State
from agent.wire.optime import OpTime
from agent.wire.profiles import MAIN
from agent.wire.settings import Settings
from agent.wire.specs import RestoreSpec
from agent.wire.topology import Topology

PROFILE: Final = "profile"
"""Field of the result: where the backup is taken from, chosen once."""


class RestoreKind:
    """Restores from logical backups."""

    kind = Kind.RESTORE

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup exists, its replica sets have a place here, and the names are in it."""
        spec = RestoreSpec.from_document(operation.spec)
        services, settings = lead.services, lead.settings
        profile = await _profile(services, settings, spec)
        topology = await services.cluster.topology()
        async with sources(services, settings, profile, spec) as found:
            plans = await make_plans(services, found, spec, topology)
            await _check_target(services, settings, spec, next(iter(plans.values())))
            if not spec.dry_run:
                if topology.is_sharded:
                    await check_served(lead, topology.replsets)
                timeouts = settings.restore.timeouts or settings.backup.timeouts
                await keep_still(services, operation.id, within_s=timeouts.balancer_stop)
            first = next(iter(plans.values()))
            await check_cluster(services, found.of, spec, plans)
            for plan in plans.values():
                check_not_doomed(
                    await lead.services.operations.active(),
                    backup=spec.backup,
                    slices_after=plan.manifest.last_write if spec.time else None,
                )
                check_slices(plan)
                check_commands(plan.slices)
            await check_found(found.of, list(plans.values()), scope_of(spec, first))
            chosen: dict[str, Any] = {PROFILE: profile}
            if topology.is_sharded:
                # All parts have to look at the same slices.
                chosen[EVIDENCE] = await pin_evidence(found.all, first)
                unfinished = await find_unfinished(found.of, spec, plans)
                chosen[UNFINISHED] = [change.to_binary() for change in unfinished]
        await services.operations.merge_result(operation.id, lead.lease.epoch, chosen)
        return [] if spec.dry_run else sorted(plans)

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """Parts see for themselves how far the others are."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Restore this replica set, or go on where another worker stopped."""
        spec = RestoreSpec.from_document(part.operation.spec)
        profile = part.operation.result.get(PROFILE, MAIN)
        topology = await part.services.cluster.topology()
        async with sources(part.services, part.settings, profile, spec) as found:
            plans = await make_plans(part.services, found, spec, topology, only=part.replset)
            plan = plans[part.replset]
            return await RestoreWork(part, found.of(plan), spec, plan, found.all).run()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Record the restore; or answer the plan that a dry run is for."""
        spec = RestoreSpec.from_document(operation.spec)
        if spec.dry_run:
            profile = operation.result.get(PROFILE, MAIN)
            return {"backup": spec.backup, "plan": await self._describe(lead, spec, profile)}
        await let_go(lead.services, operation.id)
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
        topology = await lead.services.cluster.topology()
        async with sources(lead.services, lead.settings, profile, spec) as found:
            plans = await make_plans(lead.services, found, spec, topology)
            return {
                "backup": spec.backup,
                "profile": profile,
                "replsets": [
                    await describe(found.of(plan), spec, target, plan)
                    for target, plan in plans.items()
                ],
            }


async def _check_target(
    services: Services, settings: Settings, spec: RestoreSpec, plan: Plan
) -> None:
    """What is known without a part: a cluster has one feature compatibility version."""
    node = services.node
    await node.read_versions()
    check_versions(plan, node.mongodb_version, node.fcv)
    if not plan.topology.is_sharded:
        check_quorum(quorum_of(spec, settings), await node.data_members())


@dataclass(frozen=True, slots=True)
class Sources:
    """What a restore reads: the storage of the backup, and that of the slices after it."""

    base: Storage
    slices: Storage | None
    """`main`, where a later moment than the backup's own is wanted."""

    @property
    def all(self) -> tuple[Storage, ...]:
        """Each once."""
        if self.slices is None or self.slices is self.base:
            return (self.base,)
        return (self.base, self.slices)

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
    services: Services,
    found: Sources,
    spec: RestoreSpec,
    topology: Topology,
    *,
    only: str | None = None,
) -> dict[str, Plan]:
    """What goes to each replica set, or to one. Raises `Refused`, `ConfigError`,
    `IntegrityError`."""
    backup = await read_backup(found.base, spec.backup)
    if backup.type != "logical":
        raise ConfigError(f"the backup {backup.id} is {backup.type}, not logical")
    assignment = assign(backup, topology, spec.replset_remapping)
    plans: dict[str, Plan] = {}
    for member in topology.members:
        if only not in (None, member.replset):
            continue
        share = assignment.shares[member.replset]
        if share is None:
            until = spec.time or backup.last_write
            plans[member.replset] = nothing(backup, member, topology, until)
            continue
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
        slices, reached = chosen_slices(manifest, spec.time, further, idle_until)
        # All replica sets of a cluster go to one moment; where a shard was idle nothing lies
        # between the end of its slices and that moment.
        until = reached if spec.time is None or not topology.is_sharded else spec.time
        plans[member.replset] = Plan(
            backup, member, share, manifest, slices, until, reached, topology, assignment.shards
        )
    return plans


async def _idle_until(services: Services, replset: str, reached: OpTime) -> OpTime | None:
    """Up to where the slicer of this cluster found nothing worth storing after `reached`."""
    runs = await services.runs.runs(replset)
    found = [run.covered_until for run in runs if run.start <= reached and run.end <= reached]
    return max(found, default=None)
