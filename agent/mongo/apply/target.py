"""What is on the target, and making room on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from sys import intern
from typing import Any, Final

import bson

from agent.mongo.apply.dropping import once_dropped
from agent.mongo.clients import LONG_TIMEOUT_S
from agent.mongo.cursor import raw_cursor, session_of
from agent.mongo.listing import ANY_DATE, LISTING_TIMEOUT_S, Shape, is_refused, listed
from agent.mongo.node import Document, Node
from agent.mongo.raw import documents
from agent.mongo.translate import NAMESPACE_NOT_FOUND, CommandFailed, translated
from agent.wire.namespaces import split

_SHAPES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Present:
    """One collection of the target, as its primary has it now."""

    ns: str
    uuid: bytes
    options: Document
    indexes: tuple[str, ...]
    """Names of the indexes that are ready."""


async def collections(node: Node) -> list[Present]:
    """Every collection of the replica set; views are documents of `system.views`."""
    try:
        return await _collections(node)
    except CommandFailed as error:
        if not is_refused(error):
            raise
    return [
        Present(one.ns, one.uuid, one.options, tuple(intern(i["name"]) for i in one.indexes))
        for one in await listed(node)
    ]


async def _collections(node: Node) -> list[Present]:
    command: Document = {
        "aggregate": 1,
        "pipeline": [
            {"$listCatalog": {}},
            {"$match": {"type": "collection"}},
            # Of 100,000 collections all else would be 100 MB, decoded.
            {"$project": {"ns": 1, "md.options": 1, "md.indexes": {"ready": 1, "spec.name": 1}}},
        ],
        "cursor": {"batchSize": 10_000_000},
        "readConcern": {"level": "local"},
    }
    async with session_of(node) as session:
        with translated("listing the target's collections"):
            reply = await node.command(
                "admin", command, timeout_s=LISTING_TIMEOUT_S, session=session
            )
            found = [_present(row) for row in reply["cursor"]["firstBatch"]]
            while cursor_id := reply["cursor"]["id"]:
                more = {"getMore": cursor_id, "collection": "$cmd.aggregate"}
                reply = await node.command("admin", more, timeout_s=None, session=session)
                found += [_present(row) for row in reply["cursor"]["nextBatch"]]
    return found


def _present(row: Document) -> Present:
    described = row["md"]
    options = dict(described["options"])
    uuid = options.pop("uuid")
    indexes = tuple(intern(i["spec"]["name"]) for i in described["indexes"] if i["ready"])
    return Present(row["ns"], bytes(uuid), options, indexes)


async def shapes(node: Node, databases: Iterable[str] | None = None) -> AsyncGenerator[Shape]:
    """The collections of some databases, or of all, one by one: 100,000 would take much memory."""
    chosen = None if databases is None else sorted(databases)
    try:
        async with aclosing(_shapes(node, chosen)) as rows:
            async for row in rows:
                yield row
    except CommandFailed as error:
        if not is_refused(error):
            raise
        for shape in await listed(node, chosen):
            yield shape


async def _shapes(node: Node, databases: list[str] | None) -> AsyncGenerator[Shape]:
    among = {} if databases is None else {"db": {"$in": databases}}
    command: Document = {
        "aggregate": 1,
        "pipeline": [
            {"$listCatalog": {}},
            {"$match": {"type": "collection", **among}},
            {"$project": {"ns": 1, "md.options": 1, "md.indexes": {"ready": 1, "spec": 1}}},
        ],
        "cursor": {"batchSize": _SHAPES},
        "readConcern": {"level": "local"},
    }
    async with session_of(node) as session:
        while True:
            with translated("listing the shapes of the target's collections"):
                reply = await node.command(
                    "admin",
                    command,
                    timeout_s=LISTING_TIMEOUT_S,
                    session=session,
                    codec_options=ANY_DATE,
                )
            cursor = reply["cursor"]
            for row in cursor.get("firstBatch") or cursor.get("nextBatch", ()):
                yield _shape(row)
            if not cursor["id"]:
                return
            command = {
                "getMore": cursor["id"],
                "collection": "$cmd.aggregate",
                "batchSize": _SHAPES,
            }


def _shape(row: Document) -> Shape:
    described = row["md"]
    options = dict(described["options"])
    uuid = bytes(options.pop("uuid"))
    ready = tuple(i["spec"] for i in described["indexes"] if i["ready"])
    return Shape(row["ns"], uuid, options, ready, len(ready) < len(described["indexes"]))


async def drop_database(node: Node, database: str) -> None:
    """Drop a whole database; fine if it is not there, or is being dropped already. Of thousands of
    collections it takes the server some milliseconds each, more on a busy disk, and then as long
    as a majority takes to follow: nothing but that it goes on can be asked of it."""
    command = {"dropDatabase": 1, "writeConcern": {"w": 1}}

    async def run() -> None:
        with translated(f"dropping the database {database}"):
            await node.command(database, command, timeout_s=LONG_TIMEOUT_S)

    await once_dropped(run)


async def find_all(node: Node, namespace: str) -> list[dict[str, Any]]:
    """The documents of a small collection, decoded; none when it is not there."""
    database, collection = split(namespace)
    found: list[dict[str, Any]] = []
    command: Document = {"find": collection}
    try:
        async with aclosing(raw_cursor(node, database, command, namespace)) as batches:
            async for batch in batches:
                data = batch.documents
                found += [bson.decode(data[start:end]) for start, end in documents(data)]
    except CommandFailed as error:
        if error.code != NAMESPACE_NOT_FOUND:
            raise
    return found


def databases(present: Iterable[Present]) -> list[str]:
    """The databases of some collections, in order."""
    return sorted({split(one.ns)[0] for one in present})
