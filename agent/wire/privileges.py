"""What the agents' user has to be allowed to do, and which step needs it.

`ctl db-role` prints these as roles, and a restore compares them with what its user may do before it
touches anything, so the two cannot differ. Each was taken away alone on mongod 6.0 with
authorization, and the step named beside it failed; small tests reach neither `collStats` (large
collections) nor the removal of old operations.

What stays wide, and why: a backup reads, and a restore writes, drops and renames, in every
database, because a backup may hold any of them. Merging users and roles asks for the right to make
and drop them, which is why who may use the restore role can become anybody: see docs/security.md.
There is no `anyAction`, no `anyResource`, no built-in role and no `__system`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.wire.collections import (
    AGENTS,
    BACKUPS,
    COMMANDS,
    CONFIG,
    DATABASE,
    EVENTS,
    LEASES,
    OPERATIONS,
    RESTORES,
    SLICES,
)
from agent.wire.namespaces import ROUTING, split

Document = dict[str, Any]

BACKUP_ROLE: Final = "tidelogBackup"
RESTORE_ROLE: Final = "tidelogRestore"

_NORMAL: Final = {"db": "", "collection": ""}
"""Every collection but those of `config` and `local` and the `system.*` ones."""
_BUCKETS: Final = {"db": "", "system_buckets": ""}
_VIEWS: Final = {"db": "", "collection": "system.views"}
_FUNCTIONS: Final = {"db": "", "collection": "system.js"}
_CLUSTER: Final = {"cluster": True}

_SYSTEM_DATABASES: Final = frozenset({"config", "local"})
_CATALOGUE: Final = "reading the catalogue as of one moment"


@dataclass(frozen=True, slots=True)
class Privilege:
    """Some actions on one resource, and what they are for."""

    resource: Mapping[str, Any]
    actions: tuple[str, ...]
    reason: str

    def document(self) -> Document:
        """As `createRole` takes it."""
        return {"resource": dict(self.resource), "actions": list(self.actions)}

    def where(self) -> str:
        """The resource in words."""
        if "cluster" in self.resource:
            return "the cluster"
        database = self.resource["db"] or "every database"
        if "system_buckets" in self.resource:
            return f"time series of {database}"
        collection = self.resource["collection"]
        return f"{collection} of {database}" if collection else f"collections of {database}"


def _admin(collection: str) -> Document:
    return {"db": "admin", "collection": collection}


def _control(collection: str, actions: str, reason: str) -> Privilege:
    return Privilege({"db": DATABASE, "collection": collection}, tuple(actions.split()), reason)


CONTROL: Final = (
    _control(COMMANDS, "convertToCapped insert", "waking each other"),
    _control(EVENTS, "convertToCapped insert update", "the log that ctl shows"),
    _control(OPERATIONS, "createIndex insert update remove", "what is to be carried out"),
    _control(LEASES, "insert update", "who may act"),
    _control(AGENTS, "insert update remove", "heartbeats and goodbyes"),
    _control(CONFIG, "insert update", "settings and the version of the schema"),
    _control(BACKUPS, "createIndex insert update remove", "the list of backups"),
    _control(SLICES, "insert update remove", "what is archived of the oplog"),
    _control(RESTORES, "createIndex insert update", "the list of restores"),
)
"""Writing the control collections, wherever the user works; reading is granted everywhere."""

BACKUP: Final = (
    Privilege(_NORMAL, ("find",), "reading documents"),
    Privilege(_CLUSTER, ("useUUID",), "reading a collection that is renamed meanwhile"),
    Privilege({"db": "local", "collection": "oplog.rs"}, ("find",), "archiving the oplog"),
    Privilege({"db": "config", "collection": "transactions"}, ("find",), "open transactions"),
    Privilege(_VIEWS, ("find",), "reading views and the description of time series"),
    Privilege(_FUNCTIONS, ("find",), "reading stored functions"),
    Privilege(_BUCKETS, ("find",), "reading time series"),
    Privilege(_admin("system.users"), ("find",), "reading users"),
    Privilege(_admin("system.roles"), ("find",), "reading roles"),
    Privilege(_admin("system.version"), ("find",), "whether the node is a shard"),
    Privilege(_CLUSTER, ("listDatabases",), _CATALOGUE),
    Privilege(_NORMAL, ("listCollections", "listIndexes"), _CATALOGUE),
    Privilege(_FUNCTIONS, ("listCollections", "listIndexes"), _CATALOGUE),
    Privilege(_BUCKETS, ("listCollections", "listIndexes"), _CATALOGUE),
    Privilege(_NORMAL, ("collStats", "dbStats"), "planning ranges, and progress"),
    Privilege(_BUCKETS, ("collStats",), "planning ranges of time series"),
    Privilege(_CLUSTER, ("getParameter",), "the feature compatibility version"),
    Privilege(_CLUSTER, ("replSetGetConfig",), "the identity of the replica set"),
    *CONTROL,
)
"""Enough for backups and for point-in-time archiving, and for `ctl`."""

CHOICE: Final = (
    Privilege(_CLUSTER, ("replSetGetStatus",), "choosing a node that no other copies from"),
)
"""What agents choose better with; nothing fails without it."""


def _config(collection: str, actions: str, reason: str) -> Privilege:
    return Privilege({"db": "config", "collection": collection}, tuple(actions.split()), reason)


_READ: Final = "find listCollections listIndexes collStats"

BACKUP_SHARDED: Final = (
    *(_config(split(name)[1], _READ, "reading routing tables") for name in ROUTING),
    _config("settings", "insert update remove", "pausing the balancer, and putting it back"),
    _config("shards", "find", "the replica sets of the cluster"),
    _config("migrations", "find", "waiting for ranges that are being moved"),
    _config("reshardingOperations", "find", "no backup while a collection is resharded"),
    _config("", "dbStats listCollections", "progress, and the catalogue where it is listed"),
    _control(CONFIG, "remove", "what was done to the balancer"),
    Privilege(_CLUSTER, ("appendOplogNote",), "moving an idle shard on to the end of a backup"),
)
"""What backups of a sharded cluster need beside those: on config servers and on shards."""

_WRITES: Final = ("insert", "update", "remove", "bypassDocumentValidation")

RESTORE: Final = (
    Privilege(_CLUSTER, ("applyOps", "forceUUID"), "creating collections with the UUIDs they had"),
    Privilege(_NORMAL, ("convertToCapped",), "creating capped collections"),
    # `insert` includes creating; and with `dropCollection` and `createIndex` it includes renaming.
    Privilege(_NORMAL, _WRITES, "creating, renaming, loading past validators, replaying writes"),
    Privilege(_NORMAL, ("createIndex", "dropIndex"), "building indexes, and replaying their drops"),
    Privilege(_NORMAL, ("collMod",), "replaying changes of collections"),
    Privilege(_NORMAL, ("dropDatabase", "dropCollection"), "making room, and replaying drops"),
    Privilege(_VIEWS, (*_WRITES, "dropCollection"), "views"),
    Privilege(_FUNCTIONS, (*_WRITES, "dropCollection"), "stored functions"),
    Privilege(
        _BUCKETS,
        (*_WRITES, "createIndex", "collMod", "dropCollection"),
        "time series",
    ),
    Privilege(
        _NORMAL,
        ("createUser", "createRole", "grantRole", "revokeRole", "dropUser", "dropRole"),
        "merging users and roles",
    ),
)
"""What restores need beside the privileges for backups."""

_ROUTING_WRITES: Final = ("find", "insert", "update", "remove")

RESTORE_SHARDED: Final = (
    *(
        Privilege({"db": split(name)[0], "collection": split(name)[1]}, _ROUTING_WRITES, "routing")
        for name in ROUTING
    ),
    *(
        Privilege({"db": "config", "collection": name}, ("find",), "whether anything moves")
        for name in ("shards", "mongos", "migrations", "reshardingOperations")
    ),
    *(
        Privilege({"db": "config", "collection": name}, ("find", "remove"), "tasks of old ranges")
        for name in ("rangeDeletions", "migrationCoordinators")
    ),
    *(
        Privilege({"db": "config", "collection": name}, ("find",), "what a shard knows of routing")
        for name in ("cache.collections", "cache.databases")
    ),
)
"""What restores of a sharded cluster need beside those: on config servers and on shards."""


def missing(
    held: Iterable[Mapping[str, Any]], needed: Sequence[Privilege], database: str = ""
) -> list[Privilege]:
    """What is not covered by the privileges held, as the server lists them. With `database`, what
    is needed in every database is needed in this one only."""
    listed = list(held)
    found = []
    for one in needed:
        granted = {
            action
            for privilege in listed
            if _covers(privilege["resource"], one.resource, database)
            for action in privilege["actions"]
        }
        lacking = tuple(a for a in one.actions if a not in granted)
        if lacking and "anyAction" not in granted:
            found.append(Privilege(one.resource, lacking, one.reason))
    return found


def _covers(held: Mapping[str, Any], needed: Mapping[str, Any], database: str) -> bool:
    """Whether what is granted on one resource is granted on the other, by the server's rules."""
    if held.get("anyResource"):
        return True
    if "cluster" in needed:
        return bool(held.get("cluster"))
    kind = "system_buckets" if "system_buckets" in needed else "collection"
    database = needed["db"] or database
    if kind not in held or held.get("db", "") not in ("", database):
        return False
    if held[kind] == needed[kind]:
        return True
    is_normal = database not in _SYSTEM_DATABASES and not needed[kind].startswith("system.")
    return held[kind] == "" and is_normal
