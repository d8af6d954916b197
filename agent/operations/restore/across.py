"""`ctl oplog-replay` over a sharded cluster: what has to hold before each shard replays its slices.

A shard's oplog says what was written there, and to which shard a document belonged the routing
tables said. So the replay is right where three things hold, and is refused by name where one does
not: the tables did not give anything to another shard in the span; they are here what they were
then; and all that a transaction over shards wrote is in the slices. The first two are told by a
full backup from before the span, whose routing tables are followed through the config servers'
oplog; the third by reading slices from a while before the span (docs/decisions/0022).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from agent.archive.manifest import SliceRef
from agent.errors import IntegrityError, NotFound, Refused, TargetNotCovered
from agent.mongo.raw import documents
from agent.operations.backup.agreement import check_served
from agent.operations.balancing import keep_still
from agent.operations.context import LeadContext, PartContext, Services
from agent.operations.copies import known_backup, profile_of
from agent.operations.removal.plan import check_not_doomed
from agent.operations.restore.cluster import find_unfinished
from agent.operations.restore.deciding import EVIDENCE, Evidence, evidence_of, pin_evidence
from agent.operations.restore.kind import Sources, make_plans, sources
from agent.operations.restore.plan import Plan
from agent.operations.restore.preflight import check_commands, check_slices
from agent.operations.restore.reading import pieces, slice_entries
from agent.replay.distribution import TABLES, Distribution, Followed, difference
from agent.storage.base import Storage
from agent.store.routing import RoutingTables
from agent.wire.operations import Operation
from agent.wire.optime import OpTime
from agent.wire.retention import REPLAY_BASE, REPLAY_LOOK_BACK_S
from agent.wire.settings import Settings
from agent.wire.specs import OplogReplaySpec, RestoreSpec
from agent.wire.topology import Member

WARNINGS: Final = "cluster_warnings"
"""Field of the result: what the lead found worth telling."""
_READ: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


async def choose_across(lead: LeadContext, operation: Operation) -> list[str]:
    """Check what the cluster has to be like; answers its replica sets, each of which gets a part.
    Raises `Refused` naming what stands in the way, `TargetNotCovered`."""
    spec = OplogReplaySpec.from_document(operation.spec)
    services, settings = lead.services, lead.settings
    topology = await services.cluster.topology()
    await check_served(lead, topology.replsets)
    base = await _base(services, settings, spec)
    # Named before anything is read of it: a deletion that begins now leaves it alone.
    await services.operations.merge_result(operation.id, lead.lease.epoch, {REPLAY_BASE: base})
    active = await services.operations.active()
    known = await services.catalog.backup(base)
    check_not_doomed(active, backup=base, slices_after=known.last_write)
    if not spec.dry_run:
        timeouts = settings.restore.timeouts or settings.backup.timeouts
        await keep_still(services, operation.id, within_s=timeouts.balancer_stop)
    moving = await services.cluster.migrations() + await services.cluster.resharding()
    if moving:
        raise Refused(
            f"ranges of {moving[0]} are being moved in the cluster",
            hint="stop the balancer (sh.stopBalancer()), wait for the end, and replay again",
        )
    async with _planned(services, settings, spec, base) as (found, plans):
        for plan in plans.values():
            check_slices(plan)
            check_commands(_near(plan, spec))
        warnings = await _check_routing(services, found, spec, plans)
        unfinished = await find_unfinished(found.of, _as_restore(spec, base), plans)
        if unfinished:
            raise Refused(
                f"{unfinished[0]} at {spec.end.in_words()}, on some shards and not yet on others",
                hint=f"replay to a moment before {unfinished[0].began_at}",
            )
        evidence = await pin_evidence(found.all, next(iter(plans.values())))
    chosen: dict[str, Any] = {EVIDENCE: evidence, WARNINGS: warnings}
    await services.operations.merge_result(operation.id, lead.lease.epoch, chosen)
    return topology.replsets


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica set replays."""

    storage: Storage
    slices: tuple[SliceRef, ...]
    """From before the span on, as far as transactions of the span may have begun there."""
    member: Member | None = None
    """What it is in a sharded cluster; None where nothing is sharded."""
    evidence: Evidence | None = None


@asynccontextmanager
async def part_across(part: PartContext, spec: OplogReplaySpec) -> AsyncIterator[Share]:
    """One replica set's share of a replay over a sharded cluster."""
    result = part.operation.result
    base = str(result[REPLAY_BASE])
    async with _planned(part.services, part.settings, spec, base, only=part.replset) as planned:
        found, plans = planned
        plan = plans[part.replset]
        evidence = evidence_of(found.all, result)
        yield Share(found.of(plan), _near(plan, spec), plan.target, evidence)


def _near(plan: Plan, spec: OplogReplaySpec) -> tuple[SliceRef, ...]:
    """The slices of the span, and those in which its transactions may have begun."""
    since = OpTime(T=max(0, spec.start.T - REPLAY_LOOK_BACK_S), I=0)
    return tuple(item for item in plan.slices if item.end > since)


def _as_restore(spec: OplogReplaySpec, base: str) -> RestoreSpec:
    """The restore that would lead to the same moment: it reads the same slices."""
    return RestoreSpec(backup=base, time=spec.end, replset_remapping=spec.replset_remapping)


@asynccontextmanager
async def _planned(
    services: Services,
    settings: Settings,
    spec: OplogReplaySpec,
    base: str,
    *,
    only: str | None = None,
) -> AsyncIterator[tuple[Sources, dict[str, Plan]]]:
    wanted = _as_restore(spec, base)
    backup = await known_backup(services, base)
    if backup is None:
        raise NotFound(f"there is no backup {base} any more", hint="'ctl list' shows the backups")
    profile = await profile_of(services, settings, backup)
    topology = await services.cluster.topology()
    async with sources(services, settings, profile, wanted) as found:
        plans = await make_plans(services, found, wanted, topology, only=only)
        missing = next((plan for plan in plans.values() if plan.share is None), None)
        if missing is not None:
            raise Refused(
                f"the shard {missing.target.shard} was added to the cluster after the backup"
                f" {base}, and nothing is archived for it",
                hint="restore with 'ctl restore --time' instead",
            )
        yield found, plans


async def _base(services: Services, settings: Settings, spec: OplogReplaySpec) -> str:
    """The newest full backup at or before the start of the span from which slices lead to its
    end. Raises `TargetNotCovered`, and what the last candidate was refused for."""
    reason: Exception | None = None
    for backup in reversed(await services.catalog.backups()):
        is_base = backup.is_sharded and not backup.is_selective and backup.type == "logical"
        if not is_base or backup.last_write > spec.start:
            continue
        try:
            async with _planned(services, settings, spec, backup.id) as (_, plans):
                for plan in plans.values():
                    check_slices(plan)
            return backup.id
        except (TargetNotCovered, IntegrityError, NotFound) as error:
            reason = reason or error
    if reason is not None:
        raise reason
    raise TargetNotCovered(
        f"no full backup of a sharded cluster ends at or before {spec.start.in_words()}: nothing"
        " says which shard documents belonged to then",
        hint="'ctl list' shows the backups and what is covered after each",
    )


async def _check_routing(
    services: Services, found: Sources, spec: OplogReplaySpec, plans: Mapping[str, Plan]
) -> list[str]:
    """Documents belong where they did, before, in and after the span. Answers warnings. Raises
    `Refused`."""
    config = next(plan for plan in plans.values() if plan.target.is_config)
    followed = await _followed(found.of(config), spec, config)
    if followed.change is not None:
        raise Refused(
            f"{followed.change}, within the span, and a replay onto live data cannot do that",
            hint="end the span before it, or use 'ctl restore --time', which brings routing"
            " tables along",
        )
    here = await _here(services.cluster.routing)
    tables = followed.distribution
    created = followed.new_databases & tables.primaries.keys() - here.primaries.keys()
    if created:
        name = min(created)
        shard = config.shards.get(tables.primaries[name], tables.primaries[name])
        raise Refused(
            f"the database {name} was created within the span and is not here, and a replay onto"
            " live data cannot make it known to the cluster",
            hint=f"create it with the primary shard {shard} (sh.enableSharding), end the span"
            " before it, or use 'ctl restore --time', which brings routing tables along",
        )
    other = difference(tables, here, config.shards)
    if other is not None:
        raise Refused(
            f"{other} as of {spec.start.in_words()}: what a shard's oplog says would end up on"
            " the wrong shard",
            hint="bring the data and the routing tables to the start of the span together, with"
            f" 'ctl restore --time {spec.start} --base-snapshot {config.backup.id}', or restore"
            " to the end of the span at once",
        )
    warnings = [
        f"mongos was running while the replay began ({', '.join(running)}): what its clients"
        " wrote may be mixed with what was replayed"
        for running in [await services.cluster.routers()]
        if running
    ]
    if followed.has_new_zones:
        warnings.append("zones were changed in the span; they are not changed here")
    return warnings


async def _followed(storage: Storage, spec: OplogReplaySpec, config: Plan) -> Followed:
    """The routing tables of the base, followed to the end of the span."""
    distribution = Distribution()
    tables = {entry.uuid: entry.ns for entry in config.manifest.catalogue if entry.ns in TABLES}
    for item in config.manifest.objects:
        wanted = [segment for segment in item.segments if segment.uuid in tables]
        if not wanted:
            continue
        async for segment, data in pieces(storage, item, wanted):
            for start, end in documents(data):
                row: dict[str, Any] = bson.decode(data[start:end], _READ)
                distribution.put(tables[segment.uuid], row)
    followed = Followed(distribution, spec.start, spec.end, config.shards)
    try:
        for part in config.slices:
            for frame in await slice_entries(storage, part):
                followed.read(frame)
    finally:
        followed.close()
    return followed


async def _here(routing: RoutingTables) -> Distribution:
    """The routing tables of the cluster as it is."""
    found = Distribution()
    found.primaries = await routing.primaries()
    for row in await routing.collections():
        found.put("config.collections", row)
        async for chunk in routing.chunks(bytes(row["uuid"])):
            found.put("config.chunks", {**chunk, "uuid": row["uuid"]})
    return found
