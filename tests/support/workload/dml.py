"""Writes of documents, as commands."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.support.workload.actions import Action, Mode
from tests.support.workload.model import Catalogue, Collection
from tests.support.workload.values import (
    IDENTIFIERS,
    document,
    measurement,
    scalar,
    some_identifier,
    text,
)

Command = dict[str, Any]

# Against what to aim the moving of unique keys; high enough that no document is born with it.
_PARKED: Final = 1_000_000


def insert_one(rng: random.Random, catalogue: Catalogue) -> Action:
    """One document, perhaps with an `_id` that is taken."""
    collection = catalogue.writable(rng)
    return _plain("insert_one", collection, insert(collection, [document(rng)]))


def insert_many(rng: random.Random, catalogue: Catalogue) -> Action:
    """A batch, unordered."""
    collection = catalogue.writable(rng)
    documents = [document(rng) for _ in range(rng.randrange(2, 30))]
    return _plain("insert_many", collection, insert(collection, documents))


def update_operators(rng: random.Random, catalogue: Catalogue) -> Action:
    """An update by operators, of one document or of many."""
    collection = catalogue.writable(rng)
    many = rng.random() < 0.2
    query: Command = {"n": rng.randrange(100)} if many else {"_id": some_identifier(rng)}
    return _plain(
        "update_operators", collection, update(collection, query, _operators(rng), multi=many)
    )


def replace(rng: random.Random, catalogue: Catalogue) -> Action:
    """A whole new document under the same `_id`."""
    collection = catalogue.writable(rng)
    number = rng.randrange(IDENTIFIERS)
    made = document(rng, number)
    query = {"_id": made.pop("_id")}
    return _plain("replace", collection, update(collection, query, made))


def pipeline_update(rng: random.Random, catalogue: Catalogue) -> Action:
    """An update computed by the server from the document."""
    collection = catalogue.writable(rng)
    pipeline: list[Command] = [
        {"$set": {"n": {"$add": [{"$ifNull": ["$n", 0]}, 1]}, "copied": "$sub.x"}},
        {"$unset": rng.choice(["b", "sub.y", "s"])},
    ]
    if rng.random() < 0.3:
        pipeline.append({"$replaceWith": {"$mergeObjects": [{"first": 1}, "$$ROOT"]}})
    query = {"_id": some_identifier(rng)}
    return _plain("pipeline_update", collection, update(collection, query, pipeline))


def delete(rng: random.Random, catalogue: Catalogue) -> Action:
    """One document, or all with some value."""
    collection = catalogue.writable(rng)
    if rng.random() < 0.15:
        return _plain("delete", collection, remove(collection, {"n": rng.randrange(100)}, 0))
    return _plain("delete", collection, remove(collection, {"_id": some_identifier(rng)}))


def upsert(rng: random.Random, catalogue: Catalogue) -> Action:
    """An update that creates the document if it is missing."""
    collection = catalogue.writable(rng)
    query = {"_id": some_identifier(rng)}
    change = {"$set": {"a": scalar(rng)}, "$setOnInsert": {"born": text(rng, 1)}, "$inc": {"n": 1}}
    return _plain("upsert", collection, update(collection, query, change, upsert=True))


def find_and_modify(rng: random.Random, catalogue: Catalogue) -> Action:
    """findAndModify in its three forms."""
    collection = catalogue.writable(rng)
    command: Command = {
        "findAndModify": collection.name,
        "query": {"n": {"$lt": 50}},
        "sort": {"n": 1},
    }
    form = rng.randrange(3)
    if form == 0:
        command["remove"] = True
    elif form == 1:
        command |= {"update": _operators(rng), "new": True}
    else:
        command |= {"query": {"_id": some_identifier(rng)}, "update": {"replaced": True, "n": 3}}
        command["upsert"] = True
    return _plain("find_and_modify", collection, command)


def bulk(rng: random.Random, catalogue: Catalogue) -> Action:
    """Several updates and deletes in two commands."""
    collection = catalogue.writable(rng)
    updates = [
        {"q": {"_id": some_identifier(rng)}, "u": _operators(rng), "upsert": rng.random() < 0.2}
        for _ in range(rng.randrange(2, 12))
    ]
    deletes = [{"q": {"_id": some_identifier(rng)}, "limit": 1} for _ in range(rng.randrange(1, 4))]
    return _plain(
        "bulk",
        collection,
        {"update": collection.name, "updates": updates, "ordered": False},
        {"delete": collection.name, "deletes": deletes, "ordered": False},
    )


def array_push(rng: random.Random, catalogue: Catalogue) -> Action:
    """Changes inside arrays, by position and by filter."""
    collection = catalogue.writable(rng)
    query: Command = {"_id": some_identifier(rng)}
    changes: list[Command] = [
        {"$push": {"arr": {"$each": [1, 2, 3], "$position": 0, "$slice": -12, "$sort": 1}}},
        {"$push": {"arr": rng.randrange(20)}},
        {"$addToSet": {"arr": rng.randrange(20)}},
        {"$pull": {"arr": {"$gt": 15}}},
        {"$pop": {"arr": -1}},
        {"$set": {f"arr.{rng.randrange(8)}": rng.randrange(100)}},
        {"$set": {"items.0.v": scalar(rng), "items.2.new": 1}},
        {"$inc": {"items.$[].k": 1}},
    ]
    return _plain("array_push", collection, update(collection, query, rng.choice(changes)))


def field_order(rng: random.Random, catalogue: Catalogue) -> Action:
    """The same fields and values in another order: only a byte-exact comparison sees it."""
    collection = catalogue.writable(rng)
    query = {"_id": some_identifier(rng)}
    steps: list[Command] = [
        {"$unset": {"a": 1}},
        {"$set": {"a": rng.randrange(5)}},
        {"$rename": {"b": "c"}},
        {"$rename": {"c": "b"}},
        {"$unset": {"sub.x": 1}},
        {"$set": {"sub.x": rng.randrange(5), "sub.a": 1}},
    ]
    start = rng.randrange(3) * 2
    chosen = steps[start : start + 2]
    return _plain("field_order", collection, *(update(collection, query, one) for one in chosen))


def move_unique(rng: random.Random, catalogue: Catalogue) -> Action:
    """Two documents exchange their unique keys, or one is born with the key of a dead one."""
    collection = catalogue.pick(rng, frozenset({"plain", "validated", "images"}))
    collection = collection or catalogue.writable(rng)
    one, two = rng.sample(range(IDENTIFIERS), 2)
    first, second = document(rng, one, 0), document(rng, two, 0)
    if rng.random() < 0.5:
        born = {**document(rng, two, 0), "u": one}
        commands = [
            remove(collection, {"_id": first["_id"]}),
            remove(collection, {"_id": second["_id"]}),
            insert(collection, [born]),
        ]
    else:
        moves = ((first, _PARKED + one), (second, one), (first, two))
        commands = [
            update(collection, {"_id": which["_id"]}, {"$set": {"u": key}}) for which, key in moves
        ]
    return Action("move_unique", collection.database, tuple(commands), Mode.PLAIN)


def measure(rng: random.Random, catalogue: Catalogue) -> Action:
    """Measurements into a time series, if there is one."""
    collection = catalogue.pick(rng, frozenset({"timeseries"}))
    if collection is None:
        return insert_one(rng, catalogue)
    documents = [measurement(rng) for _ in range(rng.randrange(1, 40))]
    return _plain("measure", collection, insert(collection, documents))


def insert(collection: Collection, documents: list[Command]) -> Command:
    """The command that inserts, unordered."""
    return {"insert": collection.name, "documents": documents, "ordered": False}


def update(
    collection: Collection,
    query: Command,
    change: Command | list[Command],
    *,
    multi: bool = False,
    upsert: bool = False,
) -> Command:
    """The command with one update in it."""
    one = {"q": query, "u": change, "multi": multi, "upsert": upsert}
    return {"update": collection.name, "updates": [one]}


def remove(collection: Collection, query: Command, limit: int = 1) -> Command:
    """The command with one delete in it."""
    return {"delete": collection.name, "deletes": [{"q": query, "limit": limit}]}


def _operators(rng: random.Random) -> Command:
    changes: list[Command] = [
        {"$set": {"a": scalar(rng), "sub.y.z": scalar(rng)}},
        {"$set": {"new." + rng.choice("pqr"): scalar(rng)}},
        {"$inc": {"n": rng.randrange(1, 9)}},
        {"$unset": {rng.choice(["a", "b", "s", "sub.x", "pad"]): ""}},
        {"$mul": {"n": 2}},
        {"$min": {"n": 10}, "$max": {"m": rng.randrange(100)}},
        {"$bit": {"n": {"xor": 5}}},
        {"$currentDate": {"touched": True, "stamp": {"$type": "timestamp"}}},
        {"$rename": {"s": "old_s"}, "$set": {"t2": 1}},
        {"$set": {"txt": text(rng), "pad": rng.randbytes(rng.randrange(200)).hex()}},
    ]
    return rng.choice(changes)


def _plain(kind: str, collection: Collection, *commands: Command) -> Action:
    return Action(kind, collection.database, commands, Mode.PLAIN)
