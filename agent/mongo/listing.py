"""The catalogue where the server does not tell all of it at once, and at no moment of our choice.

`$listCatalog` belongs to MongoDB 6.0 and is switched on with its feature compatibility version. A
replica set that runs 6.0 and still has 5.0 there, as between the two steps of an upgrade, has only
the commands that list databases, collections and indexes, each as it is now. They give the same
options and specifications. Asked of the primary, whose oplog says whether any of it changed since a
moment, they are the catalogue as of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from bson.codec_options import CodecOptions, DatetimeConversion

from agent.errors import NodeUnavailable, PermissionDenied, root_cause
from agent.mongo.node import Document, Node
from agent.mongo.translate import NAMESPACE_NOT_FOUND, CommandFailed, translated
from agent.tasks import TaskGroup
from agent.wire.optime import OpTime

NOT_ENABLED: Final = 224
"""What a server answers to `$listCatalog` then (QueryFeatureNotAllowed)."""
LISTING_TIMEOUT_S: Final = 100.0
"""Of one batch: the more there are, the more batches."""
_AT_ONCE: Final = 8
ALL: Final = {"batchSize": 10_000_000}
"""Of the rows of a listing."""
ANY_DATE: Final[CodecOptions[Document]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_LISTABLE: Final = ("system.buckets.", "system.js")
"""Names of system collections whose indexes the agent's user may list."""
ID_INDEX: Final = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
"""That of nearly every collection."""


class CatalogueMoved(NodeUnavailable):
    """A collection or an index was created, changed or dropped while they were listed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """All that a collection is but its documents, as the server has it: BSON values, the UUID in a
    field of its own."""

    ns: str
    uuid: bytes
    options: Document
    indexes: tuple[Document, ...]
    """Those that are ready."""
    is_building: bool
    """Whether an index is being built."""


def is_refused(error: CommandFailed) -> bool:
    """Whether a server refused `$listCatalog` for its feature compatibility version."""
    return error.code == NOT_ENABLED


async def listed_at(node: Node, read_at: OpTime) -> list[Shape]:
    """Every collection of the replica set as of an OpTime of just now.

    Raises `CatalogueMoved` where something has changed since, `NodeUnavailable`,
    `PermissionDenied`, `CommandFailed`.
    """
    elected = await _elected(node, read_at)
    found = await listed(node)
    command = {
        "find": "oplog.rs",
        "filter": {
            "ts": {"$gt": read_at.timestamp()},
            "op": "c",
            "o.commitTransaction": {"$exists": False},
            "o.abortTransaction": {"$exists": False},
            "$or": [{"o.applyOps": {"$exists": False}}, {"o.applyOps.op": "c"}],
        },
        "limit": 1,
        "singleBatch": True,
    }
    with translated("reading what changed meanwhile"):
        reply = await node.command("local", command, on_primary=True, timeout_s=LISTING_TIMEOUT_S)
    if await _elected(node, read_at) != elected:
        # What was listed may be in no oplog any more.
        raise CatalogueMoved("another primary was elected while the catalogue was listed")
    for entry in reply["cursor"]["firstBatch"]:
        change = next(iter(entry["o"]))
        raise CatalogueMoved(
            f"the catalogue changed while it was listed ({change} in {entry['ns']})",
            hint="with the feature compatibility version of the server's own version it is read "
            "as of one moment",
        )
    return found


async def _elected(node: Node, read_at: OpTime) -> Any:
    """The election of the primary, which has what `read_at` is. Raises `NodeUnavailable`."""
    with translated("asking for the primary"):
        hello = await node.command("admin", {"hello": 1}, on_primary=True)
    if OpTime.of(hello["lastWrite"]["opTime"]["ts"]) < read_at:
        raise NodeUnavailable(f"{hello['me']} is primary no more")
    return hello.get("electionId")


async def listed(node: Node, databases: Iterable[str] | None = None) -> list[Shape]:
    """The collections of some databases, or of all that backups and restores look at, as the
    primary has them now. Raises `NodeUnavailable`, `PermissionDenied`, `CommandFailed`."""
    if databases is None:
        # What is routed is for the config servers to know; the rest of `config` is each server's.
        left_out = {"local"} if node.is_config else {"local", "config"}
        with translated("listing the databases"):
            command = {"listDatabases": 1, "nameOnly": True}
            reply = await node.command("admin", command, on_primary=True)
        databases = [row["name"] for row in reply["databases"] if row["name"] not in left_out]
    found: list[Shape] = []
    room = asyncio.Semaphore(_AT_ONCE)

    async def add(database: str, row: Document) -> None:
        async with room:
            one = await _described(node, database, row)
        if one is not None:
            found.append(one)

    for database in databases:
        only = {"listCollections": 1, "filter": {"type": "collection"}, "cursor": ALL}
        rows = await _rows(node, database, only, f"listing the collections of {database}")
        try:
            async with TaskGroup() as group:
                for row in rows:
                    group.create_task(add(database, row))
        except BaseExceptionGroup as errors:
            cause = root_cause(errors)
            raise cause from cause.__cause__
    return found


async def _described(node: Node, database: str, row: Document) -> Shape | None:
    """None where it has gone meanwhile."""
    ns, uuid = f"{database}.{row['name']}", row["info"]["uuid"]
    command = {"listIndexes": uuid, "includeBuildUUIDs": True, "cursor": ALL}
    try:
        indexes = await _rows(node, database, command, f"listing the indexes of {ns}")
    except PermissionDenied:
        # Views, users and roles: their indexes are the server's own, and no role lists them.
        is_system = database == "config" or row["name"].startswith("system.")
        if not is_system or row["name"].startswith(_LISTABLE):
            raise
        indexes = [ID_INDEX]
    except CommandFailed as error:
        if error.code != NAMESPACE_NOT_FOUND:
            raise
        return None
    # The one of a clustered collection is among its options.
    ready = [i for i in indexes if "buildUUID" not in i and not i.get("clustered")]
    is_building = any("buildUUID" in index for index in indexes)
    return Shape(ns, bytes(uuid), dict(row["options"]), tuple(ready), is_building)


async def _rows(node: Node, database: str, command: Document, action: str) -> list[Document]:
    with translated(action):
        async with await node.replset_client.start_session() as session:
            return await all_rows(node, database, command, session, on_primary=True)


async def all_rows(
    node: Node, database: str, command: Document, session: Any, *, on_primary: bool = False
) -> list[Document]:
    """All rows of a listing, decoded, in one session: the server gives the rest of a cursor to no
    other, and forgets with the session what was left open. Raises driver errors."""
    rows: list[Document] = []
    while True:
        reply: Any = await node.command(
            database,
            command,
            on_primary=on_primary,
            timeout_s=LISTING_TIMEOUT_S,
            session=session,
            codec_options=ANY_DATE,
        )
        cursor = reply["cursor"]
        rows += cursor.get("firstBatch") or cursor.get("nextBatch", ())
        if not cursor["id"]:
            return rows
        command = {"getMore": cursor["id"], "collection": str(cursor["ns"]).partition(".")[2]}
