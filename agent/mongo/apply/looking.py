"""Making a shard look at the routing tables again, in the way in which routers make it look.

A shard keeps what it knows of each collection and database in memory. It reads the tables anew when
somebody shows it a version newer than its own; nothing else tells it that a collection is not
sharded any more. The command that servers have for this (`_flushRoutingTableCacheUpdates`) asks for
the action `internal`, which allows everything. But whoever may read a collection may show a shard a
version with its `find`, as a router does: the shard answers that this is not the version it knows,
and which one it does know, and reads the tables.

Once is not enough: a shard reads the tables as of the newest moment of the config servers that it
has heard of, which may be from before the tables were changed (measured on 6.0: up to a second,
whichever way it is told). So it is shown a version newer than any until it answers with that of the
tables. That makes it look, and proves that it has seen them.

How versions look is a matter between servers (here as 6.0 and later write them). A server that does
not take them is told by the command, where the agent's user may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from bson import Binary, ObjectId, Timestamp
from pymongo.errors import OperationFailure

from agent.clock import Clock
from agent.errors import NodeUnavailable
from agent.mongo.node import Document, Node
from agent.mongo.translate import UNAUTHORIZED, CommandFailed, translated
from agent.wire.namespaces import split

STATUS_NOT_KNOWN: Final = 13388
"""`StaleConfig`: what was shown, or nothing, is not what the shard knows of a collection."""
LOOK_S: Final = 0.1
WITHIN_S: Final = 60.0
_TRIES: Final = 50
_STALE_DATABASE: Final = 249
_CALL_S: Final = 60.0
_NEWEST: Final = Timestamp(0x7FFFFFFF, 1)
"""Later than any: versions are stamped with moments of the cluster's time."""
_UNSHARDED: Final = Timestamp(0, 0)

T = TypeVar("T")


class VersionNotTaken(Exception):
    """The server does not know versions as they are written here."""


async def make_look(node: Node, namespace: str) -> None:
    """Make a shard look at one collection, once. Raises `NodeUnavailable`."""
    try:
        await _show_collection(node, namespace)
    except VersionNotTaken:
        await flush(node, (), (namespace,))


async def when_known(node: Node, namespace: str, call: Callable[[], Awaitable[T]]) -> T:
    """Make a call on a collection; again, for some seconds, where a shard does not know whether the
    collection is sharded: one that has just become primary, or has just created it, has yet to
    look. Raises what the call raises."""
    for left in reversed(range(_TRIES)):
        try:
            return await call()
        except CommandFailed as error:
            if error.code != STATUS_NOT_KNOWN or not left:
                raise
        await make_look(node, namespace)
        await asyncio.sleep(LOOK_S)
    raise AssertionError("unreachable")


async def flush(node: Node, databases: Iterable[str], collections: Iterable[str]) -> bool:
    """Make a shard look, by the command among servers; False where the agent's user may not."""
    commands: list[Document] = [
        *({"_flushDatabaseCacheUpdates": name, "syncFromConfig": True} for name in databases),
        *({"_flushRoutingTableCacheUpdates": name, "syncFromConfig": True} for name in collections),
    ]
    for command in commands:
        with translated("refreshing the routing tables of the shard"):
            try:
                await node.command("admin", command, timeout_s=_CALL_S)
            except OperationFailure as error:
                if error.code == UNAUTHORIZED:
                    return False
                raise
    return True


async def _show_collection(node: Node, namespace: str) -> Document | None:
    """Answers the version that the shard knew until now."""
    database, collection = split(namespace)
    version = {"e": ObjectId(b"\xff" * 12), "t": _NEWEST, "v": Timestamp(1, 0)}
    command = {"find": collection, "limit": 1, "shardVersion": version}
    return await _show(node, database, command, STATUS_NOT_KNOWN)


async def show_collection(
    node: Node, clock: Clock, namespace: str, stamp: Timestamp | None
) -> None:
    """Make a shard look until it knows a collection with this timestamp, or, without one, as not
    sharded. Raises `VersionNotTaken`, `NodeUnavailable`, `PermissionDenied`."""

    async def is_known() -> bool:
        known = await _show_collection(node, namespace)
        return known is not None and known.get("t") == (stamp or _UNSHARDED)

    await _until(clock, is_known, f"the collection {namespace}")


async def show_database(node: Node, clock: Clock, database: str, stamp: Timestamp | None) -> None:
    """The same of a database: until the shard knows it with this timestamp, or not at all."""
    version = {"uuid": Binary(bytes(16), 4), "timestamp": _NEWEST, "lastMod": 1}
    command = {"find": "system.views", "limit": 1, "databaseVersion": version}

    async def is_known() -> bool:
        known = await _show(node, database, command, _STALE_DATABASE)
        return (known or {}).get("timestamp") == stamp

    await _until(clock, is_known, f"the database {database}")


async def _until(clock: Clock, is_known: Callable[[], Awaitable[bool]], what: str) -> None:
    started = clock.monotonic()
    while not await is_known():
        if clock.monotonic() - started > WITHIN_S:
            raise NodeUnavailable(
                f"the shard does not see the routing of {what} as the config servers have it",
                hint="check that it reaches all config servers",
            )
        await clock.sleep(LOOK_S)


async def _show(node: Node, database: str, command: Document, expected: int) -> Document | None:
    try:
        with translated("making the shard look at the routing tables"):
            await node.command(database, command, timeout_s=_CALL_S)
    except CommandFailed as error:
        cause = error.__cause__
        if error.code != expected or not isinstance(cause, OperationFailure):
            raise VersionNotTaken(error.message) from error
        return _known(cause.details or {})
    raise VersionNotTaken(f"{database}: the version shown was passed over")


def _known(details: Mapping[str, Any]) -> Document | None:
    """The version that the shard knew. With feature compatibility version 5.0 its parts stand
    beside each other, as that version had it."""
    known = details.get("vWanted")
    if not isinstance(known, Timestamp):
        return known
    if "vWantedTimestamp" not in details:
        raise VersionNotTaken("the shard does not tell the timestamp of what it knows")
    return {"t": details["vWantedTimestamp"]}
