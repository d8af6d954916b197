"""The routing tables of the target's config servers become those of the backup.

The backup's documents were loaded and replayed into collections of our own, like any others. Now
they are changed (see `agent.replay.routing`) and put in place of the target's. Everything may be
repeated: identifiers and stamps are the same for each worker of one restore. Meanwhile routers
would see half of it, which is one reason why none must run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import bson
from bson import Binary, Timestamp
from bson.codec_options import CodecOptions, DatetimeConversion

from agent.errors import RestoreFailed
from agent.faults import fault_point
from agent.mongo.apply.sharding import put, remove
from agent.mongo.cursor import raw_cursor
from agent.mongo.raw import documents
from agent.mongo.translate import NAMESPACE_NOT_FOUND, CommandFailed
from agent.operations.restore.job import Job
from agent.replay.routing import KEPT_SETTINGS, Routing, is_users
from agent.replay.scope import routing_copy
from agent.replay.unfinished import Change, rolled_forward, tags_forward
from agent.wire.namespaces import split

Document = dict[str, Any]

_READ: Final = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_BATCH: Final = 1000


async def merge_routing(job: Job, shards: Mapping[str, str]) -> None:
    """Put the backup's routing in place. Raises `RestoreFailed` where it does not fit."""
    if job.keeper.state.routed_at is None:
        # Later than everything this cluster has stamped, and known before anything is changed.
        await job.keeper.save(routed_at=(await job.node.hello()).cluster_time)
    stamped = job.keeper.state.routed_at
    assert stamped is not None
    stamp = Timestamp(stamped.T, stamped.I)
    routing = Routing(job.scope, shards, stamp, job.op_id)
    copies = {c.ns for c in job.catalogue}
    if "config.collections" not in copies:
        raise RestoreFailed("the backup of the config servers holds no routing tables")
    here = {row["_id"]: row["primary"] for row in await _all(job, "config.databases")}
    gone = {c.namespace for c in job.unfinished if c.change is Change.DROP_DATABASE}
    coming = [row for row in await _copied(job, "databases") if routing.wants(row["_id"])]
    coming = [row for row in coming if row["_id"] not in gone]
    _check_primaries(routing, here, coming)
    await clear_routing(job)
    if not job.scope.is_full:
        coming = [row for row in coming if routing.here(row["_id"]) not in here]
    job.check()
    await put(job.node, "config.databases", [routing.database(row) for row in coming])
    await _put_collections(job, routing)
    await _put_tags(job, routing)
    if job.scope.is_full:
        await _put_settings(job)


def _check_primaries(routing: Routing, here: Mapping[str, str], coming: list[Document]) -> None:
    """A database that stays must have the primary shard that its restored collections go to."""
    if routing.scope.is_full:
        return
    for row in coming:
        wanted, name = routing.shard(row["primary"]), str(routing.here(row["_id"]))
        if here.get(name, wanted) != wanted:
            raise RestoreFailed(
                f"the primary shard of the database {name} is {here[name]} here and {wanted} in "
                "the backup",
                hint="move it with movePrimary, or drop the database, and restore again",
            )


async def clear_routing(job: Job) -> None:
    """Remove what gives way; a full restore removes all that is the users'."""
    rows = await _all(job, "config.collections")
    job.check()
    if job.scope.is_full:
        staying = [row["uuid"] for row in rows if not is_users(row["_id"])]
        await remove(job.node, "config.chunks", {"uuid": {"$nin": staying}})
        await remove(job.node, "config.databases", {"_id": {"$ne": "config"}})
        await remove(job.node, "config.tags", {"ns": {"$not": {"$regex": "^config\\."}}})
    for row in rows:
        if is_users(row["_id"]) and job.scope.replaces(row["_id"]):
            job.check()
            await remove(job.node, "config.chunks", {"uuid": row["uuid"]})
            await remove(job.node, "config.tags", {"ns": row["_id"]})
            await remove(job.node, "config.collections", {"_id": row["_id"]})
    await fault_point("restore.routing_cleared")


async def _put_collections(job: Job, routing: Routing) -> None:
    taken: dict[bytes, str] = {}
    found: list[Document] = []
    for row in rolled_forward(await _copied(job, "collections"), job.unfinished):
        # A collection that was dropped leaves no document since 5.0; older ones are marked.
        if routing.wants(row["_id"]) and not row.get("dropped"):
            taken[bytes(row["uuid"])] = row["_id"]
            found.append(routing.collection(row))
    batch: list[Document] = []
    async for row in _each(job, routing_copy("config.chunks")):
        if bytes(row["uuid"]) not in taken:
            continue
        batch.append(routing.chunk(row))
        if len(batch) >= _BATCH:
            job.check()
            await put(job.node, "config.chunks", batch)
            batch = []
    job.check()
    await put(job.node, "config.chunks", batch)
    # Last: a collection is sharded from the moment its document is there.
    await put(job.node, "config.collections", found)
    for row in found:
        await _prove_ranges(job, row)


async def _prove_ranges(job: Job, collection: Document) -> None:
    command: Document = {"count": "chunks", "query": {"uuid": Binary(bytes(collection["uuid"]), 4)}}
    if not (await job.node.command("config", command))["n"]:
        raise RestoreFailed(f"the backup holds no ranges of the sharded {collection['_id']}")


async def _put_tags(job: Job, routing: Routing) -> None:
    rows = tags_forward(await _copied(job, "tags"), job.unfinished)
    rows = [row for row in rows if routing.wants(row["ns"])]
    job.check()
    await put(job.node, "config.tags", [routing.tag(row) for row in rows])
    zones = {row["tag"] for row in rows}
    known = {tag for row in await _all(job, "config.shards") for tag in row.get("tags", ())}
    for zone in sorted(zones - known):
        job.keeper.warn(
            f"no shard here belongs to the zone {zone}: assign one with sh.addShardToZone before "
            "the balancer starts"
        )


async def _put_settings(job: Job) -> None:
    rows = [row for row in await _copied(job, "settings") if row["_id"] not in KEPT_SETTINGS]
    kept = [*KEPT_SETTINGS, *(row["_id"] for row in rows)]
    job.check()
    await remove(job.node, "config.settings", {"_id": {"$nin": kept}})
    await put(job.node, "config.settings", rows)


async def _copied(job: Job, name: str) -> list[Document]:
    return await _all(job, routing_copy(f"config.{name}"))


async def _all(job: Job, namespace: str) -> list[Document]:
    return [row async for row in _each(job, namespace)]


async def _each(job: Job, namespace: str) -> AsyncIterator[Document]:
    database, collection = split(namespace)
    command: Document = {"find": collection, "batchSize": _BATCH}
    try:
        async with aclosing(raw_cursor(job.node, database, command, namespace)) as batches:
            async for batch in batches:
                data = batch.documents
                for start, end in documents(data):
                    yield bson.decode(data[start:end], _READ)
    except CommandFailed as error:
        if error.code != NAMESPACE_NOT_FOUND:
            raise
