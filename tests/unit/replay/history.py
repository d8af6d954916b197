"""Random histories of a small database, and a server that applies what a replay asks for."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import bson
from bson import Binary

from agent.archive.manifest import ChunkObject, CollectionEntry, Manifest, Segment
from agent.replay.commands import Effect
from agent.replay.interpreter import Barrier, Write
from agent.wire.optime import OpTime
from tests.unit.replay import oplog

Documents = dict[Any, dict[str, Any]]


@dataclass
class Collection:
    """One collection."""

    ns: str
    documents: Documents = field(default_factory=dict)


State = dict[bytes, Collection]
NAMES = ("db.a", "db.b", "db.c")
IDENTITIES: tuple[Any, ...] = (1, 2, "x")


@dataclass
class History:
    """Entries, and the state after each: `states[n]` is what is visible at moment `n`."""

    entries: list[bytes] = field(default_factory=list, repr=False)
    states: list[State] = field(default_factory=lambda: [{}], repr=False)

    @property
    def last(self) -> int:
        """The moment of the last entry."""
        return len(self.entries)


class Author:
    """Writes a random history."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._state: State = {}
        self._uuids = 0
        self._values = 0
        self.history = History()

    def write(self, entries: int) -> History:
        """So many entries."""
        while self.history.last < entries:
            self._step(self.history.last + 1)
        return self.history

    def _step(self, at: int) -> None:
        free = [name for name in NAMES if name not in {c.ns for c in self._state.values()}]
        roll = self._rng.random()
        if not self._state or (free and roll < 0.12):
            self._create(at, self._rng.choice(free or list(NAMES)))
        elif roll < 0.18:
            self._drop(at)
        elif roll < 0.3:
            self._rename(at)
        elif roll < 0.45:
            self._transact(at)
        else:
            self._keep(self._one(at))

    def _keep(self, entry: bytes) -> None:
        self.history.entries.append(entry)
        self.history.states.append(copy.deepcopy(self._state))

    def _choose(self) -> tuple[bytes, Collection]:
        return self._rng.choice(sorted(self._state.items()))

    def _create(self, at: int, name: str) -> None:
        self._uuids += 1
        uuid = oplog.uuid(self._uuids)
        self._state[bytes(uuid)] = Collection(name)
        o = {"create": name.partition(".")[2], "idIndex": {"v": 2, "name": "_id_"}}
        self._keep(oplog.command(at, uuid, o))

    def _drop(self, at: int) -> None:
        uuid, collection = self._choose()
        del self._state[uuid]
        o = {"drop": collection.ns.partition(".")[2]}
        self._keep(oplog.command(at, Binary(uuid, 4), o))

    def _rename(self, at: int) -> None:
        uuid, collection = self._choose()
        name = self._rng.choice([name for name in NAMES if name != collection.ns])
        o: dict[str, Any] = {"renameCollection": collection.ns, "to": name, "stayTemp": False}
        for other in [u for u, c in self._state.items() if c.ns == name]:
            o["dropTarget"] = Binary(other, 4)
            del self._state[other]
        collection.ns = name
        self._keep(oplog.command(at, Binary(uuid, 4), o))

    def _transact(self, at: int) -> None:
        writes = [bson.decode(self._one(at)) for _ in range(self._rng.randint(1, 3))]
        fields: tuple[str, ...] = ("op", "ns", "ui", "o", "o2")
        inner = [{k: w[k] for k in fields if k in w} for w in writes]
        self._keep(oplog.applied(at, inner, txn=at))

    def _one(self, at: int) -> bytes:
        uuid, collection = self._choose()
        identity = self._rng.choice(IDENTITIES)
        self._values += 1
        ui, ns, documents = Binary(uuid, 4), collection.ns, collection.documents
        if identity not in documents:
            documents[identity] = {"_id": identity, "a": self._values}
            return oplog.insert(at, ui, identity, ns=ns, a=self._values)
        if self._rng.random() < 0.5:
            documents[identity]["b"] = self._values
            return oplog.update(at, ui, identity, ns=ns, b=self._values)
        del documents[identity]
        return oplog.delete(at, ui, identity, ns=ns)


def manifest_of(history: History, catalogue_at: int, read_at: dict[bytes, int]) -> Manifest:
    """A backup whose catalogue is of one moment, and whose collections were read at others; those
    that were gone by then are named as dropped."""
    catalogue, segments, dropped = [], [], []
    for uuid, collection in sorted(history.states[catalogue_at].items()):
        index = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
        catalogue.append(CollectionEntry(ns=collection.ns, uuid=uuid.hex(), indexes=(index,)))
        read = read_at.get(uuid, catalogue_at)
        if uuid not in history.states[read]:
            dropped.append(uuid.hex())
            continue
        moment = OpTime(T=1000, I=read)
        segments.append(Segment(uuid=uuid.hex(), length=1, count=1, read_at=moment))
    item = ChunkObject(key="k", size_bytes=0, sha256="", plain_bytes=0, segments=tuple(segments))
    return Manifest(
        backup="b",
        op_id="o",
        replset="rs",
        epoch=1,
        first_write=OpTime(T=1000, I=0),
        catalogue_at=OpTime(T=1000, I=catalogue_at),
        read_end=OpTime(T=1000, I=max([catalogue_at, *read_at.values()])),
        last_write=OpTime(T=1000, I=history.last),
        catalogue=tuple(catalogue),
        objects=(item,),
        slices=(),
        dropped=tuple(dropped),
    )


class Server:
    """A target. Applying what does not fit its state is an error, as on mongod."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.marker = 0

    @classmethod
    def loaded(cls, history: History, manifest: Manifest) -> Server:
        """The base: names as in the catalogue, documents as they were read."""
        state: State = {}
        read_at = {s.uuid: s.read_at.I for o in manifest.objects for s in o.segments}
        for entry in manifest.catalogue:
            if entry.uuid not in manifest.dropped:
                uuid = bytes.fromhex(entry.uuid)
                documents = history.states[read_at[entry.uuid]][uuid].documents
                state[uuid] = Collection(entry.ns, copy.deepcopy(documents))
        return cls(state)

    def names(self) -> dict[bytes, str]:
        """The collections by UUID."""
        return {uuid: collection.ns for uuid, collection in self.state.items()}

    def write(self, item: Write) -> None:
        """An operation of `applyOps`."""
        _, document, is_lenient = item
        operation = bson.decode(document)
        collection = self.state[bytes(operation["ui"])]
        assert collection.ns == operation["ns"], (collection.ns, operation)
        documents, o = collection.documents, operation["o"]
        if operation["op"] == "i":
            documents[o["_id"]] = dict(o)
        elif operation["op"] == "d":
            documents.pop(o["_id"], None)
        else:
            identity = operation["o2"]["_id"]
            assert identity in documents or is_lenient, operation
            found = documents.setdefault(identity, {"_id": identity})
            found.update(o["diff"]["u"])

    def carry_out(self, barrier: Barrier, *, is_noted: bool = True) -> None:
        """Commands, and the note that they are done."""
        for command in barrier.commands:
            o, uuid = command.document["o"], bytes(command.document["ui"])
            if command.effect is Effect.CREATE:
                name = f"db.{o['create']}"
                assert name not in self.names().values() or self.state[uuid].ns == name
                self.state.setdefault(uuid, Collection(name))
            elif command.effect is Effect.DROP:
                self.state.pop(uuid, None)
            else:
                assert command.effect is Effect.RENAME
                if "dropTarget" in o:
                    self.state.pop(bytes(o["dropTarget"]))
                assert o["to"] not in self.names().values(), o
                assert self.state[uuid].ns == o["renameCollection"], o
                self.state[uuid].ns = o["to"]
        if is_noted:
            self.marker = barrier.position
