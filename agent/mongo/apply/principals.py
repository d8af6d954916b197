"""Users and roles: merged into `admin` from temporary collections, the agent's own kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agent.mongo.apply.target import find_all
from agent.mongo.clients import LONG_TIMEOUT_S
from agent.mongo.node import Document, Node
from agent.mongo.translate import translated
from agent.wire.namespaces import TEMPORARY, USERS_AND_ROLES

USERS: Final = f"admin.{TEMPORARY}Users"
ROLES: Final = f"admin.{TEMPORARY}Roles"
_FOLLOWED_WITHIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Own:
    """The documents of the users this agent is logged in as, and of the roles they rest on."""

    users: tuple[Document, ...]
    roles: tuple[Document, ...]


async def own_principals(node: Node) -> Own:
    """Read them from the target. Raises `NodeUnavailable`, `PermissionDenied`."""
    with translated("asking who the agent is logged in as"):
        reply = await node.command("admin", {"connectionStatus": 1})
    names = {(one["user"], one["db"]) for one in reply["authInfo"]["authenticatedUsers"]}
    if not names:
        return Own((), ())
    users, roles = [await find_all(node, namespace) for namespace in USERS_AND_ROLES]
    own = [user for user in users if (user["user"], user["db"]) in names]
    return Own(tuple(own), tuple(_rested_on(own, roles)))


def _rested_on(users: list[Document], roles: list[Document]) -> list[Document]:
    """The roles that users have, and those that these inherit."""
    by_name = {(role["role"], role["db"]): role for role in roles}
    wanted: dict[tuple[str, str], Document] = {}
    waiting = [_name(role) for user in users for role in user.get("roles", ())]
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in wanted:
            wanted[name] = by_name[name]
            waiting += [_name(role) for role in by_name[name].get("roles", ())]
    return list(wanted.values())


def _name(role: dict[str, Any]) -> tuple[str, str]:
    return role["role"], role["db"]


async def merge(node: Node, database: str | None) -> None:
    """Make the users and roles (of one database, or all) those of the temporary collections."""
    command: Document = {
        "_mergeAuthzCollections": 1,
        "tempUsersCollection": USERS,
        "tempRolesCollection": ROLES,
        "db": database or "",
        "drop": True,
        "writeConcern": {"w": "majority", "wtimeout": int(_FOLLOWED_WITHIN_S * 1000)},
    }
    with translated("merging users and roles"):
        await node.command("admin", command, timeout_s=LONG_TIMEOUT_S)
