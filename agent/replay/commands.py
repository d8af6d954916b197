"""What each command of the oplog does to the catalogue, and what the target has to be told.

The symbolic part always happens; the answer is what to carry out on the target, if anything. Index
commands never reach it (see `indexing`), nor do options that would make the server delete documents
while they are being restored: these are set at the end. Data operations never wait for commands of
another collection, but every command waits for all operations before it and holds up all after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from bson import Binary
from bson.raw_bson import RawBSONDocument

from agent.errors import RestoreFailed
from agent.replay import indexing
from agent.replay.catalogue import Catalogue, Collection, Options
from agent.replay.entries import NO_UUID, Entry
from agent.replay.scope import Scope
from agent.wire.namespaces import split

TRANSACTIONAL: Final = frozenset({"applyOps", "commitTransaction", "abortTransaction"})
_ENVELOPE: Final = frozenset({"create", "idIndex", "uuid"})


class Effect(StrEnum):
    """What a command does on the target."""

    CREATE = "create"
    DROP = "drop"
    RENAME = "rename"
    CHANGE = "change"
    EMPTY = "empty"
    DROP_VIEWS = "drop views"
    """Selective restores keep the `system.views` of the target and remove what was wanted."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something to carry out on the target, alone. `document` is an operation of `applyOps`."""

    effect: Effect
    target_uuid: bytes
    target_ns: str
    """The name the collection has afterwards."""
    document: dict[str, Any]


def operation(target_ns: str, target_uuid: bytes, command: dict[str, Any]) -> dict[str, Any]:
    """A command as an operation of `applyOps`."""
    return {
        "op": "c",
        "ns": f"{split(target_ns)[0]}.$cmd",
        "ui": Binary(target_uuid, 4),
        "o": command,
    }


def creation(collection: Collection) -> Command:
    """How a collection comes to be on the target. Without its `idIndex` the server would make an
    index of an old version, and one without the collection's collation."""
    command: dict[str, Any] = {"create": split(collection.target_ns)[1], **collection.creation()}
    if "_id_" in collection.indexes:
        command["idIndex"] = collection.indexes["_id_"]
    return Command(
        Effect.CREATE,
        collection.target_uuid,
        collection.target_ns,
        operation(collection.target_ns, collection.target_uuid, command),
    )


class Commands:
    """Interprets command entries on a catalogue."""

    def __init__(self, catalogue: Catalogue, scope: Scope) -> None:
        self._catalogue = catalogue
        self._scope = scope
        self._known: dict[str, Callable[[Entry, RawBSONDocument], list[Command]]] = {
            "create": self._create,
            "drop": self._drop,
            "dropDatabase": self._drop_database,
            "renameCollection": self._rename,
            "collMod": self._change,
            "emptycapped": self._empty,
            "createIndexes": self._create_index,
            "commitIndexBuild": self._commit_index_build,
            "dropIndexes": self._drop_indexes,
            "deleteIndexes": self._drop_indexes,
            "startIndexBuild": _nothing,
            "abortIndexBuild": _nothing,
            "dbCheck": _nothing,
        }

    def interpret(self, entry: Entry) -> list[Command]:
        """Do to the catalogue what the command does; answer what the target has to be told."""
        command = entry.command()
        name = next(iter(command))
        handler = self._known.get(name)
        if handler is None:
            raise RestoreFailed(
                f"the oplog holds the command {name}, which this version cannot replay",
                hint="upgrade the agents, or restore to a moment before it",
            )
        return handler(entry, command)

    def _named(self, entry: Entry) -> Collection | None:
        return self._catalogue.by_uuid.get(entry.ui)

    def _create(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        ns = f"{_database(entry)}.{command['create']}"
        if entry.ui == NO_UUID or not self._scope.wants(entry.ui, ns):
            return []
        if entry.ui in self._catalogue.by_uuid:
            return []
        options: Options = {k: v for k, v in command.items() if k not in _ENVELOPE}
        indexes: indexing.Indexes = {}
        if "idIndex" in command:
            indexes["_id_"] = dict(command["idIndex"])
        made = Collection(entry.ui, ns, self._scope, options=options, indexes=indexes)
        self._catalogue.add(made)
        return [] if made.is_filtered else [creation(made)]

    def _drop(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        found = self._catalogue.remove(entry.ui)
        return [] if found is None else _dropping(found)

    def _drop_database(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        # Its collections were dropped by entries of their own before this one.
        dropped = []
        for collection in self._catalogue.in_database(_database(entry)):
            self._catalogue.remove(collection.uuid)
            dropped += _dropping(collection)
        return dropped

    def _rename(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        moved = self._named(entry)
        replaced = None
        if isinstance(command.get("dropTarget"), bytes):
            replaced = self._catalogue.remove(bytes(command["dropTarget"]))
        if moved is None:
            return [] if replaced is None else _dropping(replaced)
        if not command.get("stayTemp"):
            moved.options = {k: v for k, v in moved.options.items() if k != "temp"}
        before = moved.target_ns
        after = self._catalogue.rename(moved, command["to"])
        if moved.is_ignored or before == after:
            return [] if replaced is None else _dropping(replaced)
        told: dict[str, Any] = {"renameCollection": before, "to": after, "stayTemp": False}
        if replaced is not None and not replaced.is_ignored:
            told["dropTarget"] = Binary(replaced.target_uuid, 4)
        document = operation(before, moved.target_uuid, told)
        return [Command(Effect.RENAME, moved.target_uuid, after, document)]

    def _change(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        collection = self._named(entry)
        if collection is None:
            return []
        changes = {k: v for k, v in command.items() if k != "collMod"}
        index = changes.pop("index", None)
        if index is not None:
            indexing.change(collection.indexes, index)
        if collection.is_clustered and "expireAfterSeconds" in changes:
            _expire(collection, changes.pop("expireAfterSeconds"))
        if not changes or collection.is_ignored:
            return []
        return [self._telling(Effect.CHANGE, collection, "collMod", changes)]

    def _empty(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        collection = self._named(entry)
        if collection is None or collection.is_ignored:
            return []
        return [self._telling(Effect.EMPTY, collection, "emptycapped", {})]

    def _telling(
        self, effect: Effect, collection: Collection, name: str, arguments: dict[str, Any]
    ) -> Command:
        told = {name: split(collection.target_ns)[1], **arguments}
        document = operation(collection.target_ns, collection.target_uuid, told)
        return Command(effect, collection.target_uuid, collection.target_ns, document)

    def _create_index(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        if (collection := self._named(entry)) is not None:
            indexing.add_flat(collection.indexes, command)
        return []

    def _commit_index_build(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        if (collection := self._named(entry)) is not None:
            indexing.add_built(collection.indexes, command)
        return []

    def _drop_indexes(self, entry: Entry, command: RawBSONDocument) -> list[Command]:
        if (collection := self._named(entry)) is not None:
            indexing.drop(collection.indexes, command)
        return []


KNOWN: Final = TRANSACTIONAL | {
    "create",
    "drop",
    "dropDatabase",
    "renameCollection",
    "collMod",
    "emptycapped",
    "createIndexes",
    "commitIndexBuild",
    "dropIndexes",
    "deleteIndexes",
    "startIndexBuild",
    "abortIndexBuild",
    "dbCheck",
}
"""Names of the commands that a replay understands."""


def _nothing(entry: Entry, command: RawBSONDocument) -> list[Command]:
    return []


def _database(entry: Entry) -> str:
    return split(entry.ns.decode())[0]


def _dropping(collection: Collection) -> list[Command]:
    if collection.is_ignored or collection.is_lazy:
        return []
    effect = Effect.DROP_VIEWS if collection.is_filtered else Effect.DROP
    told = {"drop": split(collection.target_ns)[1]}
    document = operation(collection.target_ns, collection.target_uuid, told)
    return [Command(effect, collection.target_uuid, collection.target_ns, document)]


def _expire(collection: Collection, after: Any) -> None:
    rest = {k: v for k, v in collection.options.items() if k != "expireAfterSeconds"}
    collection.options = rest if after == "off" else {**rest, "expireAfterSeconds": after}
