"""Changes of structure that a cluster was amidst of at a moment.

Renaming or dropping a sharded collection, or a database, is a change on every shard and in the
routing tables, one after the other. A moment in the middle shows some of it done and some not. The
primary shard of the database keeps a document of the change while it is under way, and after a
crash the cluster reads it and finishes what it says. A restore to such a moment does the same.

In the oplog of the primary shard the document is inserted, replaced with each phase, and deleted at
the end. In its first phases nothing has been changed yet that can be seen, and it may still be
given up: then it is as if it had not begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

import bson
from bson import Binary

from agent.replay.entries import DELETE, entries
from agent.wire.namespaces import split
from agent.wire.optime import OpTime

Document = dict[str, Any]

_COORDINATORS: Final = b"config.system.sharding_ddl_coordinators"


class Change(StrEnum):
    """What is under way, by the server's own names."""

    RENAME = "renameCollection"
    DROP = "dropCollection"
    DROP_DATABASE = "dropDatabase"


_PREPARING: Final = {
    Change.RENAME: frozenset({"unset", "checkPreconditions", "freezeMigrations"}),
    Change.DROP: frozenset({"unset", "freezeCollection"}),
    Change.DROP_DATABASE: frozenset({"unset"}),
}


@dataclass(frozen=True, slots=True)
class Unfinished:
    """One change. Of a rename only that of a sharded collection is ever seen half done."""

    change: Change
    namespace: str
    """The collection; of `DROP_DATABASE` the database."""
    began_at: OpTime
    to: str = ""
    row: Document | None = None
    """Of a rename: the routing document of the collection, under its old name."""

    def __str__(self) -> str:
        if self.change is Change.RENAME:
            return f"{self.namespace} was being renamed to {self.to}"
        return f"{self.namespace} was being dropped"

    def touches(self, namespace: str) -> bool:
        """Whether it concerns a collection."""
        if self.change is Change.DROP_DATABASE:
            return split(namespace)[0] == self.namespace
        return namespace in (self.namespace, self.to)

    def to_binary(self) -> Binary:
        """As the operation's document keeps it: shard keys have dots in their names."""
        return Binary(
            bson.encode(
                {
                    "change": str(self.change),
                    "namespace": self.namespace,
                    "began_at": self.began_at.to_document(),
                    "to": self.to,
                    "row": self.row,
                }
            )
        )

    @classmethod
    def from_binary(cls, data: bytes) -> Self:
        """What `to_binary` wrote."""
        found = bson.decode(data)
        return cls(
            Change(found["change"]),
            found["namespace"],
            OpTime.from_document(found["began_at"]),
            found["to"],
            found["row"],
        )


class Coordinators:
    """Follows the documents through the slices of one shard; feed them in order."""

    def __init__(self, until: OpTime) -> None:
        self._until = until.pack()
        self._open: dict[tuple[str, str], tuple[int, Document]] = {}

    def read(self, data: bytes) -> None:
        """Look through the entries in `data`."""
        if _COORDINATORS not in data:
            return
        for entry in entries(data):
            if entry.ns != _COORDINATORS or entry.ts > self._until:
                continue
            document = entry.command()
            if "_id" not in document:
                # An update by differences: what it is does not change.
                continue
            identity = document["_id"]
            key = str(identity["operationType"]), str(identity["namespace"])
            if entry.op == DELETE:
                self._open.pop(key, None)
            else:
                began, _ = self._open.get(key, (entry.ts, None))
                self._open[key] = began, bson.decode(document.raw)

    def found(self) -> list[Unfinished]:
        """What is under way and has to be finished."""
        found = []
        for (operation, namespace), (began, document) in self._open.items():
            if operation not in set(Change):
                continue
            change = Change(operation)
            if document.get("phase", "") in _PREPARING[change]:
                continue
            row = document.get("optShardedCollInfo")
            if change is Change.RENAME and row is None:
                continue
            name = namespace.removesuffix(".") if change is Change.DROP_DATABASE else namespace
            at = OpTime.unpack(began)
            found.append(Unfinished(change, name, at, str(document.get("to", "")), row))
        return found


def rolled_forward(rows: Iterable[Document], changes: Sequence[Unfinished]) -> list[Document]:
    """The documents of `config.collections` as they are when the changes are done."""
    found = {row["_id"]: row for row in rows}
    for change in changes:
        if change.change is Change.DROP_DATABASE:
            found = {ns: row for ns, row in found.items() if not change.touches(ns)}
            continue
        found.pop(change.namespace, None)
        if change.row is not None:
            there = found.get(change.to)
            if there is None or there["uuid"] != change.row["uuid"]:
                found[change.to] = {**change.row, "_id": change.to}
    return list(found.values())


def tags_forward(rows: Iterable[Document], changes: Sequence[Unfinished]) -> list[Document]:
    """The documents of `config.tags`, in the same way."""
    found = list(rows)
    for change in changes:
        moved = []
        for row in found:
            if change.change is Change.RENAME and row["ns"] == change.namespace:
                moved.append({**row, "ns": change.to})
            elif change.change is Change.RENAME or not change.touches(row["ns"]):
                moved.append(row)
        found = moved
    return found
