"""Routing documents of a backup, as the target gets them.

Names of shards are mapped. Every sharded collection and every database becomes a new incarnation,
stamped with the moment of the restore: routers and shards follow a table only if it is newer than
the one they know, and would for ever hold on to what they had before the restore. The history of a
range begins with it, too: what was read at earlier moments is not there any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bson import Binary, ObjectId, Timestamp

from agent.errors import RestoreFailed
from agent.replay.scope import Scope, derived_uuid
from agent.wire.namespaces import split

Document = dict[str, Any]

KEPT_SETTINGS: Final = frozenset({"balancer", "automerge"})
"""Of the target: whether and when ranges move is not the backup's to say."""
OWN_DATABASES: Final = frozenset({"config", "admin", "local"})
"""What the cluster shards for itself (`config.system.sessions`) stays as it is."""


def is_users(namespace: str) -> bool:
    """Whether a sharded collection is the users', not the cluster's own."""
    return split(namespace)[0] not in OWN_DATABASES


@dataclass(frozen=True, slots=True)
class Routing:
    """How documents are changed."""

    scope: Scope
    shards: Mapping[str, str]
    """`{name of a shard in the backup: its name here}`."""
    stamp: Timestamp
    """The moment of the restore in the target's cluster time."""
    op_id: str

    def here(self, namespace: str) -> str | None:
        """The name on the target of a collection or (without a collection) a database whose routing
        is taken; None where it is not."""
        if not is_users(namespace):
            return None
        if split(namespace)[1]:
            return self.scope.name_here(namespace)
        found = self.scope.name_here(f"{namespace}.system.views")
        return None if found is None else split(found)[0]

    def wants(self, namespace: str) -> bool:
        """Whether the routing of a collection or a database is taken."""
        return self.here(namespace) is not None

    def database(self, document: Document) -> Document:
        """A document of `config.databases`."""
        version: Document = {
            "uuid": Binary(derived_uuid(f"{self.op_id}/{document['_id']}"), 4),
            "timestamp": self.stamp,
            "lastMod": 1,
        }
        return {
            **document,
            "_id": self.here(document["_id"]),
            "primary": self.shard(document["primary"]),
            "version": version,
        }

    def collection(self, document: Document) -> Document:
        """A document of `config.collections`. That its ranges must not move, a change of structure
        sets while it is under way."""
        kept = {key: value for key, value in document.items() if key != "allowMigrations"}
        return {
            **kept,
            "_id": self.here(document["_id"]),
            "uuid": self.uuid(document),
            "timestamp": self.stamp,
            "lastmodEpoch": self._object_id(document["_id"]),
        }

    def chunk(self, document: Document) -> Document:
        """A document of `config.chunks`."""
        shard = self.shard(document["shard"])
        found = {
            **document,
            "uuid": self.uuid(document),
            "shard": shard,
            "history": [{"validAfter": self.stamp, "shard": shard}],
        }
        if "onCurrentShardSince" in document:
            found["onCurrentShardSince"] = self.stamp
        if not self.scope.is_full:
            # The original's ranges may still be there, under another name.
            found["_id"] = self._object_id(document["_id"])
        return found

    def tag(self, document: Document) -> Document:
        """A document of `config.tags`."""
        if self.scope.renaming is None:
            return document
        return {
            **document,
            "_id": self._object_id(document["_id"]),
            "ns": self.here(document["ns"]),
        }

    def uuid(self, document: Document) -> Binary:
        """The UUID that the collection of a document has on the target."""
        return Binary(self.scope.target_uuid(bytes(document["uuid"]), "a.a"), 4)

    def shard(self, name: str) -> str:
        """The name that a shard has here. Raises `RestoreFailed`."""
        try:
            return self.shards[name]
        except KeyError:
            raise RestoreFailed(
                f"the routing tables name the shard {name}, and the backup holds no such shard",
                hint="it was added after the backup: restore from one made since then",
            ) from None

    def _object_id(self, of: object) -> ObjectId:
        """The same for each worker of one restore, and another for another restore."""
        return ObjectId(hashlib.sha256(f"{self.op_id}/{of}".encode()).digest()[:12])

    @property
    def changes(self) -> Mapping[str, Callable[[Document], Document]]:
        """By the name of the collection in `config`."""
        return {
            "databases": self.database,
            "collections": self.collection,
            "chunks": self.chunk,
            "tags": self.tag,
        }
