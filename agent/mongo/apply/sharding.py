"""Writing what makes a cluster: routing documents on config servers, and a shard's view of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson import Timestamp

from agent.clock import Clock
from agent.mongo.apply.looking import (
    LOOK_S,
    STATUS_NOT_KNOWN,
    VersionNotTaken,
    flush,
    show_collection,
    show_database,
)
from agent.mongo.clients import LONG_TIMEOUT_S
from agent.mongo.node import Document, Node
from agent.mongo.translate import refused_write, translated
from agent.wire.namespaces import split

WRITE_TIMEOUT_S: Final = 100.0
_AT_ONCE: Final = 500
_LOCAL: Final = {"w": 1}
_TRIES: Final = 20


async def remove(node: Node, namespace: str, query: Document) -> int:
    """Delete what matches; answers how many documents were deleted."""
    database, collection = split(namespace)
    command: Document = {
        "delete": collection,
        "deletes": [{"q": query, "limit": 0}],
        "writeConcern": _LOCAL,
    }
    removed = 0
    for left in reversed(range(_TRIES)):
        with translated(f"deleting from {namespace}"):
            # One collection may have a million ranges.
            reply = await node.command(database, command, timeout_s=LONG_TIMEOUT_S)
        removed += int(reply["n"])
        codes = {error["code"] for error in reply.get("writeErrors", [])}
        if codes != {STATUS_NOT_KNOWN} or not left:
            break
        await asyncio.sleep(LOOK_S)
    _check(reply, namespace)
    return removed


async def put(node: Node, namespace: str, documents: Sequence[Document]) -> None:
    """Put documents in, each in place of the one with its `_id`."""
    database, collection = split(namespace)
    for start in range(0, len(documents), _AT_ONCE):
        command: Document = {
            "update": collection,
            "updates": [
                {"q": {"_id": document["_id"]}, "u": document, "upsert": True}
                for document in documents[start : start + _AT_ONCE]
            ],
            "writeConcern": _LOCAL,
        }
        with translated(f"writing to {namespace}"):
            reply = await node.command(database, command, timeout_s=WRITE_TIMEOUT_S)
        _check(reply, namespace)


def _check(reply: Document, namespace: str) -> None:
    errors: list[dict[str, Any]] = reply.get("writeErrors", [])
    if errors:
        raise refused_write(f"writing to {namespace}", errors[0])


async def refresh_routing(
    node: Node,
    clock: Clock,
    databases: Mapping[str, Timestamp | None],
    collections: Mapping[str, Timestamp | None],
) -> bool:
    """Make a shard's primary know the routing of these with the timestamps that the tables give
    them, None for what is in no table. False where it cannot be made to, since it is of a version
    that takes only the command among servers, which the agent's user may not give."""
    try:
        for name, stamp in databases.items():
            await show_database(node, clock, name, stamp)
        for name, stamp in collections.items():
            await show_collection(node, clock, name, stamp)
    except VersionNotTaken:
        return await flush(node, databases, collections)
    return True
