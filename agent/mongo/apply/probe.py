"""Whether the agent's user may do what a restore does, found out before anything is dropped.

The server lists what the user who asks may do, roles within roles resolved, and that is compared
with what restores need. Then one collection of our own is created, written, indexed and dropped in
the ways a restore does these things: what the list cannot say shows here.
"""

from __future__ import annotations

from typing import Final

import bson

from agent.errors import PermissionDenied
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.operations import apply_commands, apply_writes
from agent.mongo.apply.structure import creating, drop
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated
from agent.wire.namespaces import TEMPORARY, split
from agent.wire.privileges import (
    BACKUP,
    BACKUP_SHARDED,
    RESTORE,
    RESTORE_ROLE,
    RESTORE_SHARDED,
    missing,
)

_NAME: Final = f"{TEMPORARY}Probe"
_WAITING: Final = f"{TEMPORARY}Waiting"


async def check_privileges(node: Node, database: str = "", *, is_sharded: bool = False) -> None:
    """Compare what a restore needs, everywhere or in one database, with what the user may do.
    Where nobody logs in everybody may do everything. Raises `PermissionDenied`."""
    with translated("asking what the agent's user may do"):
        reply = await node.command("admin", {"connectionStatus": 1, "showPrivileges": True})
    who = reply["authInfo"]
    if not who["authenticatedUsers"]:
        return
    sharded = (*BACKUP_SHARDED, *RESTORE_SHARDED) if is_sharded else ()
    needed = [*RESTORE, *BACKUP, *sharded]
    lacking = missing(who["authenticatedUserPrivileges"], needed, database)
    if not lacking:
        return
    user = ", ".join(f"{one['user']} of {one['db']}" for one in who["authenticatedUsers"])
    first, others = lacking[0], len(lacking) - 1
    raise PermissionDenied(
        f"the user {user} lacks {', '.join(first.actions)} on {first.where()}, which a restore"
        f" needs for {first.reason}" + (f" ({others} more are lacking)" if others else ""),
        hint=f"grant it the role {RESTORE_ROLE} as 'ctl db-role restore' prints it; nothing was"
        " touched",
    )


async def probe_rights(node: Node, database: str, uuid: bytes) -> None:
    """Do a little of everything in `database`, and leave nothing. Raises `PermissionDenied`."""
    ns = f"{database}.{_NAME}"
    await _create(node, ns, uuid)
    try:
        await _write(node, ns)
        await _index(node, ns)
    finally:
        await drop(node, ns, uuid)


async def wait_dropped(node: Node, database: str, uuid: bytes) -> None:
    """Wait until no drop of the database is under way, which somebody may have asked for who is
    gone by now. Only creating tells: a collection of our own, always of the same `uuid`, since the
    server sets one of another aside. Raises `DropPending` where it lasts."""
    ns = f"{database}.{_WAITING}"
    await _create(node, ns, uuid)
    await drop(node, ns, uuid)


async def _create(node: Node, ns: str, uuid: bytes) -> None:
    await apply_commands(node, [creating(ns, uuid)])


async def _write(node: Node, ns: str) -> None:
    operations: list[Document] = [
        {"op": "i", "ns": ns, "o": {"_id": 1}},
        {"op": "u", "ns": ns, "o": {"$v": 2, "diff": {"i": {"a": 1}}}, "o2": {"_id": 1}},
        {"op": "d", "ns": ns, "o": {"_id": 1}},
    ]
    await apply_writes(
        node, [RawDocument(bson.encode(operation)) for operation in operations], is_lenient=True
    )
    database, collection = split(ns)
    with translated("trying an insert"):
        await node.command(
            database,
            {"insert": collection, "documents": [{"_id": 2}], "bypassDocumentValidation": True},
        )


async def _index(node: Node, ns: str) -> None:
    database, collection = split(ns)
    with translated("trying an index build"):
        await node.command(
            database,
            {
                "createIndexes": collection,
                "indexes": [{"key": {"a": 1}, "name": "a_1"}],
                "commitQuorum": 1,  # the server's default waits for members that are down
            },
        )
