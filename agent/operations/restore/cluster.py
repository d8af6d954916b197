"""What the lead checks of a sharded cluster before a restore of it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import bson

from agent.archive.manifest import CollectionEntry
from agent.errors import ConfigError, Refused
from agent.mongo.raw import documents
from agent.operations.context import Services
from agent.operations.restore.plan import Plan
from agent.operations.restore.reading import pieces, slice_entries
from agent.operations.restore.selecting import scope_of
from agent.replay.entries import INSERT, entries
from agent.replay.routing import is_users
from agent.storage.base import Storage
from agent.wire.specs import RestoreSpec

_SHARDS = b"config.shards"


async def check_cluster(
    services: Services,
    storage_of: Callable[[Plan], Storage],
    spec: RestoreSpec,
    plans: Mapping[str, Plan],
) -> None:
    """Nothing moves in the target, and the backup knows every shard of the moment restored to.
    Raises `Refused`, `ConfigError`."""
    config = next((plan for plan in plans.values() if plan.target.is_config), None)
    if config is None:
        return
    if spec.ns_from is not None:
        raise ConfigError(
            "--ns-from and --ns-to do not work on a sharded cluster",
            hint="restore under the old name with --ns, then rename it",
        )
    moving = await services.cluster.migrations() + await services.cluster.resharding()
    if moving:
        raise Refused(
            f"ranges of {moving[0]} are being moved in the cluster",
            hint="stop the balancer (sh.stopBalancer()), wait for the end, and restore again",
        )
    storage = storage_of(config)
    await _check_shards(storage, config)
    if spec.is_selective:
        await _check_primaries(services, storage, spec, config)


async def _check_shards(storage: Storage, config: Plan) -> None:
    """No shard was added between the backup and the moment restored to: it would be missing."""
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


async def _check_primaries(
    services: Services, storage: Storage, spec: RestoreSpec, config: Plan
) -> None:
    """A database that is there already keeps its primary shard; what is restored into it and is
    not sharded must come to the same one."""
    here = await services.cluster.routing.primaries()
    selection = scope_of(spec, config).selection
    for row in await _base_databases(storage, config):
        name = str(row["_id"])
        if not is_users(name) or not selection.matches(f"{name}.system.views"):
            continue
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
