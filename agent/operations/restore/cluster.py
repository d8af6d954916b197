"""What the lead checks of a sharded cluster before a restore of it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import bson

from agent.archive.codec import in_thread
from agent.archive.manifest import CollectionEntry
from agent.errors import Refused
from agent.mongo.raw import documents
from agent.operations.context import Services
from agent.operations.restore.plan import Plan
from agent.operations.restore.reading import frames, pieces, slice_entries
from agent.operations.restore.selecting import scope_of
from agent.replay.entries import INSERT, entries
from agent.replay.routing import is_users
from agent.replay.unfinished import Change, Coordinators, Unfinished
from agent.storage.base import Storage
from agent.wire.namespaces import split
from agent.wire.optime import OpTime
from agent.wire.specs import RestoreSpec

LOOK_BACK_S: Final = 900
"""How long before the moment restored to the beginning of a change of structure is looked for; they
take less than a second unless a shard is down."""
_SHARDS: Final = b"config.shards"


async def check_cluster(
    services: Services,
    storage_of: Callable[[Plan], Storage],
    spec: RestoreSpec,
    plans: Mapping[str, Plan],
) -> None:
    """Nothing moves in the target, and the backup knows every shard of the moment restored to.
    Raises `Refused`."""
    config = next((plan for plan in plans.values() if plan.target.is_config), None)
    if config is None:
        return
    moving = await services.cluster.migrations() + await services.cluster.resharding()
    if moving:
        raise Refused(
            f"ranges of {moving[0]} are being moved in the cluster",
            hint="stop the balancer (sh.stopBalancer()), wait for the end, and restore again",
        )
    storage = storage_of(config)
    await check_shards(storage, config)
    if spec.is_selective:
        await _check_primaries(services, storage, spec, config)


async def check_shards(storage: Storage, config: Plan) -> None:
    """No shard was added between the backup and the moment restored to: it would be missing. Raises
    `Refused`."""
    floor, until = config.manifest.first_write.pack(), config.until.pack()
    for item in config.slices:
        for frame in await slice_entries(storage, item):
            if _SHARDS not in frame:
                continue
            for entry in entries(frame):
                if entry.op != INSERT or entry.ns != _SHARDS or not floor < entry.ts <= until:
                    continue
                name = entry.command()["_id"]
                if name not in config.shards:
                    raise Refused(
                        f"the shard {name} was added to the cluster after the backup "
                        f"{config.backup.id}, which does not hold it",
                        hint="restore from a backup made since then",
                    )


async def find_unfinished(
    storage_of: Callable[[Plan], Storage], spec: RestoreSpec, plans: Mapping[str, Plan]
) -> list[Unfinished]:
    """Changes of structure that were under way at the moment restored to, from the newest slices
    of each shard. Raises `Refused` where a restore of a part would have to finish one."""
    found: list[Unfinished] = []
    for plan in plans.values():
        coordinators = Coordinators(plan.until)
        since = OpTime(T=plan.until.T - LOOK_BACK_S, I=0)
        for item in plan.slices:
            if item.end > since and plan.target.shard is not None:
                async for frame in frames(storage_of(plan), item):
                    await in_thread(coordinators.read, frame)
        found += coordinators.found()
    if not spec.is_selective:
        return found
    scope = scope_of(spec, next(iter(plans.values())))
    for change in found:
        is_database = change.change is Change.DROP_DATABASE
        names = [f"{change.namespace}.system.views" if is_database else change.namespace, change.to]
        if any(scope.name_here(name) is not None for name in filter(None, names)):
            raise Refused(
                f"{change} at {plan.until}, on some shards and not yet on others",
                hint=f"restore to a moment before {change.began_at}, or all of the backup",
            )
    return []


async def _check_primaries(
    services: Services, storage: Storage, spec: RestoreSpec, config: Plan
) -> None:
    """A database that is there already keeps its primary shard; what is restored into it and is
    not sharded must come to the same one."""
    here = await services.cluster.routing.primaries()
    scope = scope_of(spec, config)
    for row in await _base_databases(storage, config):
        found = scope.name_here(f"{row['_id']}.system.views") if is_users(row["_id"]) else None
        if found is None:
            continue
        name = split(found)[0]
        wanted = config.shards.get(row["primary"])
        if name in here and here[name] != wanted:
            raise Refused(
                f"the primary shard of the database {name} is {here[name]} here and {wanted} in "
                "the backup",
                hint="move it with movePrimary, or drop the database here, and restore again",
            )


async def _base_databases(storage: Storage, config: Plan) -> list[dict[str, Any]]:
    entry: CollectionEntry | None = next(
        (e for e in config.manifest.catalogue if e.ns == "config.databases"), None
    )
    found: list[dict[str, Any]] = []
    for item in config.manifest.objects:
        wanted = [s for s in item.segments if entry is not None and s.uuid == entry.uuid]
        async for _, data in pieces(storage, item, wanted):
            found += [bson.decode(data[a:b]) for a, b in documents(data)]
    return found
