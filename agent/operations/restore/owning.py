"""After the routing tables are in place: a shard keeps what is its own, and looks at the tables.

Orphans of the moment restored to were restored with everything else. They are found by the table of
ranges and the index of the shard key, a few seeks for each run of ranges that others own, so the
cost follows the ranges and the orphans, not the data. A collection that is not sharded belongs to
the primary shard of its database and to no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from contextlib import aclosing
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from agent.errors import RestoreFailed
from agent.faults import fault_point
from agent.mongo.apply.sharding import refresh_routing, remove
from agent.mongo.apply.structure import drop
from agent.mongo.apply.target import Present, collections, find_all
from agent.mongo.cursor import raw_cursor
from agent.mongo.node import Document
from agent.mongo.raw import documents
from agent.mongo.translate import translated
from agent.operations.restore.job import Job
from agent.replay.ownership import bound, foreign_ranges, supporting
from agent.replay.routing import OWN_DATABASES, is_users
from agent.store.routing import RoutingTables
from agent.wire.namespaces import is_archived, split

TASKS: Final = ("config.rangeDeletions", "config.migrationCoordinators")
"""What a shard has yet to do to ranges. They are of the time before the restore."""
_AT_ONCE: Final = 1000
_IDENTITIES: Final = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


async def forget_tasks(job: Job) -> None:
    """Remove what the shard would do to ranges of collections that the restore replaces: the
    documents that come would be deleted with those that go."""
    for namespace in TASKS:
        for document in await find_all(job.node, namespace):
            if job.scope.replaces(str(document.get("nss", ""))):
                job.check()
                await remove(job.node, namespace, {"_id": document["_id"]})


async def keep_own(job: Job, tables: RoutingTables, shard: str) -> Counter[str]:
    """Remove what the shard does not own; answers the orphans, `{namespace: documents}`. May be
    repeated."""
    routed = {row["_id"]: row for row in await tables.collections() if is_users(row["_id"])}
    present = {p.ns: p for p in await collections(job.node)}
    removed = Counter[str]()
    for namespace, row in sorted(routed.items()):
        if job.scope.replaces(namespace):
            removed[namespace] += await _keep_ranges(
                job, tables, shard, row, present.get(namespace)
            )
            await fault_point("restore.orphans_removed")
    _tell_of(job, removed)
    primaries = await tables.primaries()
    for namespace, one in sorted(present.items()):
        if job.scope.replaces(namespace) and _is_astray(namespace, routed, primaries, shard):
            job.check()
            await drop(job.node, namespace, one.uuid)
    return removed


async def keep_own_of(
    job: Job, tables: RoutingTables, shard: str, before: Set[bytes]
) -> Counter[str]:
    """The same after a replay onto live data, of what the replay wrote to: collections that were
    there (`before`, by UUID on the target) lose orphans at most."""
    written = {c.target_uuid for c in job.catalogue}
    routed = {row["_id"]: row for row in await tables.collections() if is_users(row["_id"])}
    primaries = await tables.primaries()
    removed = Counter[str]()
    for one in sorted(await collections(job.node), key=lambda present: present.ns):
        if one.uuid not in written:
            continue
        row = routed.get(one.ns)
        if row is not None and bytes(row["uuid"]) == one.uuid:
            removed[one.ns] += await _keep_ranges(job, tables, shard, row, one)
        elif one.uuid not in before and _is_astray(one.ns, routed, primaries, shard):
            job.check()
            await drop(job.node, one.ns, one.uuid)
    _tell_of(job, removed)
    return removed


def _tell_of(job: Job, removed: Counter[str]) -> None:
    if found := removed.total():
        job.keeper.warn(
            f"{found} orphaned documents, which the routing tables of that moment give to other "
            "shards, were left out"
        )


def _is_astray(
    namespace: str, routed: Mapping[str, Any], primaries: Mapping[str, str], shard: str
) -> bool:
    """Whether it is an unsharded collection of a database whose primary is another shard: left
    over from a `movePrimary` at that moment."""
    database, collection = split(namespace)
    if namespace in routed or not is_archived(namespace) or database == "admin":
        return False
    if collection.startswith("system.") and not collection.startswith("system.buckets."):
        return False
    return primaries.get(database, shard) != shard


async def _keep_ranges(
    job: Job, tables: RoutingTables, shard: str, row: Document, present: Present | None
) -> int:
    namespace, uuid = row["_id"], bytes(row["uuid"])
    if present is None or present.uuid != uuid:
        owned = [c async for c in tables.chunks(uuid) if c["shard"] == shard]
        if owned:
            raise RestoreFailed(
                f"the routing tables give the shard {shard} a part of {namespace}, and "
                + ("it is not there" if present is None else "another collection is there")
            )
        if present is not None:
            job.check()
            await drop(job.node, namespace, present.uuid)
        return 0
    pattern = supporting(row["key"], await _indexes(job, namespace))
    removed = 0
    async for low, high in foreign_ranges(tables.chunks(uuid), shard):
        if pattern is None:
            job.keeper.warn(
                f"no index of {namespace} supports its shard key, so orphaned documents could not "
                "be looked for"
            )
            return removed
        removed += await _remove_range(
            job, namespace, pattern, bound(low, pattern), bound(high, pattern)
        )
    return removed


async def _indexes(job: Job, namespace: str) -> list[Document]:
    database, collection = split(namespace)
    with translated(f"listing the indexes of {namespace}"):
        reply = await job.node.command(
            database, {"listIndexes": collection, "cursor": {"batchSize": 1000}}
        )
    found: list[Document] = reply["cursor"]["firstBatch"]
    return found


async def _remove_range(
    job: Job, namespace: str, pattern: Mapping[str, Any], low: Document, high: Document
) -> int:
    database, collection = split(namespace)
    command: Document = {
        "find": collection,
        "min": low,
        "max": high,
        "hint": dict(pattern),
        "projection": {"_id": 1},
        "batchSize": _AT_ONCE,
    }
    removed = 0
    async with aclosing(raw_cursor(job.node, database, command, namespace)) as batches:
        async for batch in batches:
            data = batch.documents
            found = [bson.decode(data[a:b], _IDENTITIES)["_id"] for a, b in documents(data)]
            if found:
                await job.pace.keep()
                job.check()
                removed += await remove(job.node, namespace, {"_id": {"$in": found}})
    return removed


async def look_again(job: Job, tables: RoutingTables) -> None:
    """Make the shard's primary read the routing tables anew; its secondaries follow it."""
    known = {str(row["_id"]) for row in await find_all(job.node, "config.cache.collections")}
    wanted = dict.fromkeys(known) | {
        str(row["_id"]): row.get("timestamp") for row in await tables.collections()
    }
    databases = {
        str(row["_id"]): None for row in await find_all(job.node, "config.cache.databases")
    }
    databases |= await tables.database_stamps()
    job.check()
    if not await refresh_routing(
        job.node,
        job.clock,
        {name: stamp for name, stamp in sorted(databases.items()) if name not in OWN_DATABASES},
        {name: stamp for name, stamp in sorted(wanted.items()) if is_users(name)},
    ):
        job.keeper.warn(
            "the agent's user may not tell the shard to read its routing tables again (action "
            "'internal'): restart the shard's mongods, or let its primary step down, before "
            "starting mongos"
        )
