"""Writing what makes a cluster: routing documents on config servers, a shard's own notes of them.

A shard keeps a copy of the routing tables in memory. It looks again when a router shows it a newer
one, but nothing tells it that a collection is not sharded any more; so it is told to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Final

from agent.errors import PermissionDenied
from agent.mongo.apply.operations import LOOK_S, STATUS_NOT_KNOWN
from agent.mongo.node import Document, Node
from agent.mongo.translate import CommandFailed, translated
from agent.wire.namespaces import split

WRITE_TIMEOUT_S: Final = 100.0
REFRESH_TIMEOUT_S: Final = 60.0
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
            reply = await node.command(database, command, timeout_s=WRITE_TIMEOUT_S)
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
        message = f"{namespace}: {errors[0].get('errmsg')}"
        raise CommandFailed(message, code=int(errors[0].get("code", 0)))


async def refresh_routing(node: Node, databases: Iterable[str], collections: Iterable[str]) -> bool:
    """Tell a shard's primary to read the routing of these anew; False where the agent's user may
    not say so (it is a command among servers)."""
    commands: list[Document] = [
        *({"_flushDatabaseCacheUpdates": name, "syncFromConfig": True} for name in databases),
        *({"_flushRoutingTableCacheUpdates": name, "syncFromConfig": True} for name in collections),
    ]
    for command in commands:
        with translated("refreshing the routing tables of the shard"):
            try:
                await node.command("admin", command, timeout_s=REFRESH_TIMEOUT_S)
            except PermissionDenied:
                return False
    return True
