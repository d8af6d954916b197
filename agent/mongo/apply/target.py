"""What is on the target, and making room on it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from sys import intern
from typing import Any, Final

import bson

from agent.mongo.apply.dropping import once_dropped
from agent.mongo.cursor import raw_cursor
from agent.mongo.node import Document, Node
from agent.mongo.raw import documents
from agent.mongo.translate import NAMESPACE_NOT_FOUND, CommandFailed, translated
from agent.wire.namespaces import split

DROP_TIMEOUT_S: Final = 100.0
COUNT_TIMEOUT_S: Final = 100.0


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
    with translated("listing the target's collections"):
        reply = await node.command("admin", command, timeout_s=DROP_TIMEOUT_S)
        found = [_present(row) for row in reply["cursor"]["firstBatch"]]
        while cursor_id := reply["cursor"]["id"]:
            more = {"getMore": cursor_id, "collection": "$cmd.aggregate"}
            reply = await node.command("admin", more, timeout_s=None)
            found += [_present(row) for row in reply["cursor"]["nextBatch"]]
    return found


def _present(row: Document) -> Present:
    described = row["md"]
    options = dict(described["options"])
    uuid = options.pop("uuid")
    indexes = tuple(intern(i["spec"]["name"]) for i in described["indexes"] if i["ready"])
    return Present(row["ns"], bytes(uuid), options, indexes)


async def drop_database(node: Node, database: str) -> None:
    """Drop a whole database; fine if it is not there, or is being dropped already."""
    command = {"dropDatabase": 1, "writeConcern": {"w": 1}}

    async def run() -> None:
        with translated(f"dropping the database {database}"):
            await node.command(database, command, timeout_s=DROP_TIMEOUT_S)

    await once_dropped(run)


async def count(node: Node, namespace: str) -> int:
    """Documents in a collection, counted by the server's metadata; 0 when it is not there."""
    database, collection = split(namespace)
    with translated(f"counting {namespace}"):
        reply = await node.command(database, {"count": collection}, timeout_s=COUNT_TIMEOUT_S)
    return int(reply["n"])


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
