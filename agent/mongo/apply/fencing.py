"""Fencing off whoever wrote to the target before.

A worker asks its lease before each write, and may be stopped between asking and sending: what it
sends when it wakes up is from before its successor's time. And what it did send may still wait on
the server. So each worker puts up a *fence*, a collection of its own, and takes down those of the
workers before it. Each of its `applyOps` begins with a write into its fence: where that is gone,
the server refuses the whole array. Taking a fence down waits for the array that is carried out at
that moment. Replicating it, and reading it again in an initial sync, is what any write into a
collection is that was dropped later.

Plain commands (inserts of loading, drops, index builds) cannot carry such a write. Those that the
server has received are waited for before the successor begins; drops name the UUID of what they
mean.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import bson
from bson import Binary

from agent.errors import NodeUnavailable
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.operations import apply_commands, apply_writes
from agent.mongo.apply.structure import creating, drop
from agent.mongo.clients import APP_NAME, LONG_TIMEOUT_S
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated
from agent.wire.collections import DATABASE, PREFIX
from agent.wire.namespaces import TEMPORARY, split

FENCE: Final = f"admin.{TEMPORARY}Fence"
"""Followed by the epoch of the worker."""
LOOK_S: Final = 0.1
_LISTING_TIMEOUT_S: Final = 30.0
_WRITES: Final = (
    *("applyOps", "insert", "update", "delete", "create", "drop", "dropDatabase"),
    *("renameCollection", "collMod", "dropIndexes", "_mergeAuthzCollections"),
)
"""What restores write by, but for index builds, which take long, and which building them again
joins."""
_CONTROL: Final = f"{DATABASE}.{PREFIX}"
"""Agents write their own collections at any time."""


async def put_up(
    node: Node,
    epoch: int,
    uuid: bytes,
    *,
    check: Callable[[], None],
    told: Callable[[list[str]], None],
) -> RawDocument:
    """Make the fence of a worker, after those of the workers before it are gone and all that they
    had sent is done; `told` is called with the namespaces that this waits for, once. Answers what
    each of its arrays must begin with. May be repeated.

    Raises what `check` raises, which is asked before each write; `NodeUnavailable`.
    """
    namespace = f"{FENCE}{epoch}"
    for other, its_uuid in await _fences(node):
        if its_uuid != uuid and int(other.removeprefix(FENCE)) <= epoch:
            check()
            await drop(node, other, its_uuid)
    check()
    await apply_commands(node, [creating(namespace, uuid)])
    post: Document = {"ns": namespace, "ui": Binary(uuid, 4), "o": {"_id": 0}}
    check()
    await apply_writes(node, [RawDocument(bson.encode({"op": "i", **post}))], is_lenient=True)
    await _await_others(node, check, told)
    return RawDocument(bson.encode({"op": "u", **post, "o2": {"_id": 0}}))


async def _fences(node: Node) -> list[tuple[str, bytes]]:
    """Name and UUID of each fence there is."""
    database, prefix = split(FENCE)
    command: Document = {
        "listCollections": 1,
        "filter": {"name": {"$regex": f"^{prefix}[0-9]+$"}, "type": "collection"},
        "cursor": {"batchSize": 1_000_000},
    }
    with translated("looking for the fences of other workers"):
        reply = await node.command(database, command, timeout_s=_LISTING_TIMEOUT_S)
    return [
        (f"{database}.{one['name']}", bytes(one["info"]["uuid"]))
        for one in reply["cursor"]["firstBatch"]
    ]


async def _await_others(
    node: Node, check: Callable[[], None], told: Callable[[list[str]], None]
) -> None:
    """Wait until the server works on no write of this agent's user: there is none of ours yet."""
    waiting = await writes_under_way(node)
    if not waiting:
        return
    told(waiting)
    try:
        async with asyncio.timeout(LONG_TIMEOUT_S):  # a database may be dropped for long
            while await writes_under_way(node):
                await asyncio.sleep(LOOK_S)
                check()
    except TimeoutError:
        raise NodeUnavailable(
            f"{node.host} still works on what another worker of a restore sent: {waiting[0]}",
            hint="look at db.currentOp() for commands of tidelog-agent",
        ) from None


async def writes_under_way(node: Node) -> list[str]:
    """The namespaces of restores' commands that the server is carrying out for the agent's user,
    which needs no privilege. Raises `NodeUnavailable`."""
    command: Document = {
        "aggregate": 1,
        "pipeline": [
            {"$currentOp": {"allUsers": False, "truncateOps": True}},
            {"$match": {"appName": APP_NAME, "active": True}},
            {"$project": {"ns": 1, "command": 1}},
        ],
        "cursor": {"batchSize": 1_000},
    }
    with translated("looking for writes that are under way"):
        reply = await node.command("admin", command, timeout_s=_LISTING_TIMEOUT_S)
    rows = reply["cursor"]["firstBatch"]
    return [row["ns"] for row in rows if is_restores_write(row["ns"], row["command"])]


def is_restores_write(namespace: str, command: Mapping[str, Any]) -> bool:
    """Whether a command, as the server shows it, is one that restores write by."""
    if namespace.startswith(_CONTROL):
        return False
    shown = command.get("$truncated")  # of a long one, the beginning of its text
    name = next(iter(command), "") if shown is None else str(shown).strip("{ ").partition(":")[0]
    return name in _WRITES
