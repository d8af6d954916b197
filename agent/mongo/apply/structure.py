"""Commands that change collections, in the form that is safe on a server in use.

`applyOps` can carry all of them, but on a collection whose index is being built it takes mongod
down: it finds the build in its way, lets go of a lock that must not be let go of, and aborts (6.0).
The plain commands end the build or refuse. Only creating with a UUID, emptying a capped collection
and dropping `system.js` or `system.views` have no plain form (the last is refused while there are
time series); these are tried only where nothing is built.
"""

from __future__ import annotations

from typing import Any, Final

from bson import Binary

from agent.errors import NodeUnavailable
from agent.mongo.apply.looking import when_known
from agent.mongo.apply.operations import apply_commands
from agent.mongo.listing import ID_INDEX
from agent.mongo.node import Document, Node
from agent.mongo.translate import NAMESPACE_NOT_FOUND, CommandFailed, translated
from agent.wire.namespaces import split

COMMAND_TIMEOUT_S: Final = 100.0
_NOT_DROPPABLE: Final = frozenset({"system.js", "system.views"})
_LOCAL: Final = {"w": 1}
_ILLEGAL: Final = 20
_UUID_MISMATCH: Final = 361
_GONE: Final = frozenset({NAMESPACE_NOT_FOUND, _UUID_MISMATCH})
_INVALID_OPTIONS: Final = 72
"""What a server answers to a UUID with feature compatibility version 5.0, and to that of the
buckets of a time series, which it does compare before (6.0.5)."""


def creating(namespace: str, uuid: bytes) -> Document:
    """How a collection without options comes to be, as an operation of `applyOps`."""
    database, collection = split(namespace)
    command = {"create": collection, "idIndex": ID_INDEX}
    return {"op": "c", "ns": f"{database}.$cmd", "ui": Binary(uuid, 4), "o": command}


async def drop(node: Node, namespace: str, uuid: bytes) -> None:
    """Drop a collection, ending index builds on it; fine if it is not there. One of another UUID
    stays, whatever its name, but on a server of feature compatibility version 5.0, which cannot be
    told. The buckets of a time series take its view with them."""
    database, collection = split(namespace)
    if collection in _NOT_DROPPABLE:
        await _apply_unbuilt(node, namespace, uuid, {"drop": collection})
        return
    plain: Document = {"drop": collection}
    exact = {**plain, "collectionUUID": Binary(uuid, 4)}
    try:
        try:
            await _run(node, namespace, database, exact, f"dropping {namespace}")
        except CommandFailed as error:
            if error.code != _INVALID_OPTIONS:
                raise
            await _run(node, namespace, database, plain, f"dropping {namespace}")
    except CommandFailed as error:
        if error.code not in _GONE:
            raise


async def rename(
    node: Node, before: str, after: str, uuid: bytes, drop_target: bytes | None
) -> None:
    """Rename within a database, over the collection with that UUID where one is given."""
    command: Document = {"renameCollection": before, "to": after}
    if drop_target is not None:
        command["dropTarget"] = Binary(drop_target, 4)
    try:
        await _run(node, before, "admin", command, f"renaming {before} to {after}")
    except CommandFailed as error:
        if error.code != _ILLEGAL:
            raise
        # A shard that takes one of them for sharded still.
        told = {key: value for key, value in command.items() if key != "writeConcern"}
        await _apply_unbuilt(node, before, uuid, {"stayTemp": False, **told})


async def change(node: Node, namespace: str, changes: dict[str, Any]) -> None:
    """`collMod`."""
    database, collection = split(namespace)
    await _run(
        node, namespace, database, {"collMod": collection, **changes}, f"changing {namespace}"
    )


async def drop_index(node: Node, namespace: str, name: str) -> None:
    """Drop one index by its name."""
    database, collection = split(namespace)
    command = {"dropIndexes": collection, "index": name}
    await _run(node, namespace, database, command, f"dropping the index {name} of {namespace}")


async def empty(node: Node, namespace: str, uuid: bytes) -> None:
    """Remove all documents of a capped collection."""
    await _apply_unbuilt(node, namespace, uuid, {"emptycapped": split(namespace)[1]})


async def _run(node: Node, namespace: str, database: str, command: Document, action: str) -> None:
    async def run() -> None:
        with translated(action):
            await node.command(
                database, {**command, "writeConcern": _LOCAL}, timeout_s=COMMAND_TIMEOUT_S
            )

    await when_known(node, namespace, run)


async def _apply_unbuilt(node: Node, namespace: str, uuid: bytes, command: Document) -> None:
    """By `applyOps`, where no index is being built. Raises `NodeUnavailable` where one is."""
    database, collection = split(namespace)
    listing: Document = {"listIndexes": collection, "includeBuildUUIDs": True}
    try:
        with translated(f"listing the indexes of {namespace}"):
            reply = await node.command(database, listing, timeout_s=COMMAND_TIMEOUT_S)
    except CommandFailed as error:
        if error.code != NAMESPACE_NOT_FOUND:
            raise
        return
    if any("buildUUID" in index for index in reply["cursor"]["firstBatch"]):
        raise NodeUnavailable(
            f"an index of {namespace} is being built on the target",
            hint="wait for the build or end it, and run the restore again",
        )
    operation = {"op": "c", "ns": f"{database}.$cmd", "ui": Binary(uuid, 4), "o": command}
    await apply_commands(node, [operation])
