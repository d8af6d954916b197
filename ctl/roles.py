"""The least a user of the agents needs, proven call by call against mongod with authorization.

What stays wide, and why: a restore writes, drops and renames in every database, because the backup
may hold any; `setParameter` is for pausing the TTL monitor while data older than now is loaded.
There is no `anyAction` on `anyResource` and no `__system`.
"""

from __future__ import annotations

from typing import Any, Final

from agent.wire.collections import ALL, DATABASE
from agent.wire.namespaces import TEMPORARY

Document = dict[str, Any]

_ANY: Final = {"db": "", "collection": ""}
"""Every collection but the `system.*` ones, which have to be named."""
_CONTROL: Final = (
    *("find", "insert", "update", "remove", "createCollection", "convertToCapped"),
    *("createIndex", "listIndexes", "dropCollection"),
)
_TEMPORARY: Final = tuple(f"{TEMPORARY}{what}" for what in ("Marker", "Users", "Roles"))
"""What a restore makes in `admin` and drops again."""


def _may(resource: Document, *actions: str) -> Document:
    return {"resource": resource, "actions": list(actions)}


def control_privileges() -> list[Document]:
    """The control collections, wherever the user works."""
    return [_may({"db": DATABASE, "collection": name}, *_CONTROL) for name in ALL]


def backup_role(name: str = "tidelogBackup") -> Document:
    """A `createRole` command: enough for backups and for point-in-time archiving."""
    return {
        "createRole": name,
        "roles": ["backup"],
        "privileges": [
            _may(_ANY, "splitVector", "dbHash", "dbStats"),
            _may({"db": "", "collection": "system.views"}, "find"),
            _may(
                {"cluster": True},
                *("replSetGetStatus", "replSetGetConfig", "inprog", "hostInfo", "getCmdLineOpts"),
            ),
            *control_privileges(),
        ],
    }


def restore_role(name: str = "tidelogRestore") -> Document:
    """A `createRole` command: what restores need beside the role for backups."""
    return {
        "createRole": name,
        "roles": ["restore"],
        "privileges": [
            _may(
                _ANY,
                *("find", "listIndexes", "collStats", "update", "remove", "dropIndex"),
                *("dropDatabase", "renameCollectionSameDB", "dbHash"),
            ),
            _may(
                {"db": "", "collection": "system.views"},
                *("find", "insert", "update", "remove", "createCollection", "dropCollection"),
            ),
            _may({"db": "", "collection": "system.js"}, "update", "remove"),
            _may(
                {"db": "", "system_buckets": ""},
                *("find", "listIndexes", "collStats", "update", "remove"),
            ),
            _may({"db": "config", "collection": ""}, "find", "insert", "update", "remove"),
            _may({"cluster": True}, "setParameter", "replSetGetStatus"),
            *(_may({"db": DATABASE, "collection": name}, *_CONTROL) for name in _TEMPORARY),
            *control_privileges(),
        ],
    }
