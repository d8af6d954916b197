"""Index builds of every kind on collections with documents; changes, drops, aborted builds."""

from __future__ import annotations

import random
from typing import Final

from tests.support.workload.actions import Action, Mode
from tests.support.workload.ddl import DDL_DEADLINE_MS, FAR_S, create
from tests.support.workload.dml import Command, update
from tests.support.workload.model import WRITABLE, Catalogue, Collection
from tests.support.workload.values import identifier

_INDEXABLE: Final = WRITABLE | {"timeseries"}

INDEX_SPECS: Final[dict[str, Command]] = {
    "single": {"key": {"n": 1}},
    "descending compound": {"key": {"a": -1, "n": 1, "sub.x": -1}},
    "unique": {"key": {"u": 1}, "unique": True},
    "unique sparse": {"key": {"u": -1}, "unique": True, "sparse": True},
    "unique partial": {
        "key": {"u": 1, "n": 1},
        "unique": True,
        "partialFilterExpression": {"u": {"$gte": 0}},
    },
    "sparse": {"key": {"b": 1}, "sparse": True},
    "partial": {
        "key": {"s": 1},
        "partialFilterExpression": {"n": {"$gt": 30}, "a": {"$exists": True}},
    },
    "ttl": {"key": {"t": 1}, "expireAfterSeconds": FAR_S},
    "hidden": {"key": {"txt": 1}, "hidden": True},
    "wildcard": {"key": {"$**": 1}, "wildcardProjection": {"sub": 1, "items": 1}},
    "wildcard path": {"key": {"sub.$**": 1}},
    "text": {
        "key": {"txt": "text", "s": "text"},
        "weights": {"txt": 5, "s": 2},
        "default_language": "german",
        "language_override": "lang",
    },
    "sphere": {"key": {"geo": "2dsphere", "n": 1}},
    "plane": {"key": {"xy": "2d"}, "bits": 20, "min": -180, "max": 180},
    "hashed": {"key": {"_id": "hashed"}},
    "hashed compound": {"key": {"n": 1, "s": "hashed"}},
    "collation": {"key": {"s": 1}, "collation": {"locale": "fr", "strength": 1}},
    "multikey": {"key": {"arr": 1}},
    "multikey deep": {"key": {"items.k": 1, "items.v": -1}},
    "prepared unique": {"key": {"u": 1, "_id": 1}, "prepareUnique": True},
    "own engine options": {
        "key": {"m": 1},
        "storageEngine": {"wiredTiger": {"configString": "prefix_compression=false"}},
    },
}

_TIMESERIES_SPECS: Final[dict[str, Command]] = {
    "by meta": {"key": {"m.sensor": 1, "t": -1}},
    "by value": {"key": {"value": 1}},
    "meta wildcard": {"key": {"m.$**": 1}},
}


def create_index(rng: random.Random, catalogue: Catalogue) -> Action:
    """One to three indexes of any kind, in one command."""
    collection = catalogue.pick(rng, _INDEXABLE)
    if collection is None:
        return create(rng, catalogue)
    specs = _TIMESERIES_SPECS if collection.kind == "timeseries" else INDEX_SPECS
    chosen = rng.sample(sorted(specs), rng.choice([1, 1, 1, 2, 3]))
    command = build(collection, [{**specs[name], "name": name} for name in chosen])
    collection.indexes.extend(chosen)
    return Action("create_index", collection.database, (command,))


def drop_index(rng: random.Random, catalogue: Catalogue) -> Action:
    """One index goes by name or by key, or all of them."""
    collection = catalogue.pick(rng, _INDEXABLE)
    if collection is None or not collection.indexes:
        return create_index(rng, catalogue)
    name = rng.choice(collection.indexes)
    which: object = name
    if rng.random() < 0.15:
        which = "*"
        collection.indexes.clear()
    else:
        collection.indexes.remove(name)
        if name in INDEX_SPECS and "text" not in name and rng.random() < 0.3:
            which = INDEX_SPECS[name]["key"]
    return Action(
        "drop_index", collection.database, ({"dropIndexes": collection.name, "index": which},)
    )


def change_index(rng: random.Random, catalogue: Catalogue) -> Action:
    """collMod of an index: hidden, time to live, on the way to unique."""
    collection = catalogue.pick(rng, WRITABLE)
    if collection is None or not collection.indexes:
        return create_index(rng, catalogue)
    name = rng.choice(collection.indexes)
    change: Command = {"hidden": rng.random() < 0.6}
    if name == "ttl":
        change = {"expireAfterSeconds": FAR_S - rng.randrange(1_000)}
    elif name == "prepared unique":
        change = rng.choice([{"unique": True}, {"prepareUnique": False}, {"prepareUnique": True}])
    command = {"collMod": collection.name, "index": {"name": name, **change}}
    return Action("change_index", collection.database, (command,))


def fail_build(rng: random.Random, catalogue: Catalogue) -> Action:
    """A unique index that the documents do not allow: the build starts and is aborted."""
    collection = catalogue.pick(rng, frozenset({"plain", "images"}))
    if collection is None:
        return create_index(rng, catalogue)
    doubles = [
        update(collection, {"_id": identifier(n)}, {"$set": {"dup": 1}}, upsert=True)
        for n in (1, 2)
    ]
    spec = {"key": {"dup": 1}, "name": "impossible", "unique": True}
    return Action("fail_build", collection.database, (*doubles, build(collection, [spec])))


def abort_build(rng: random.Random, catalogue: Catalogue) -> Action:
    """A build that is dropped while (with luck) it runs."""
    collection = catalogue.pick(rng, WRITABLE)
    if collection is None:
        return create_index(rng, catalogue)
    name = f"raced {catalogue.serial()}"
    spec: Command = {"key": {"txt": 1, "s": 1, "n": -1}, "name": name}
    commands = (
        build(collection, [spec]),
        {"dropIndexes": collection.name, "index": name},
    )
    # Both may win: a later drop of it would be a drop of something missing, which is fine.
    return Action("abort_build", collection.database, commands, Mode.RACE)


def build(collection: Collection, specs: list[Command]) -> Command:
    """The command, bounded: with a voting member down a build waits for it for ever."""
    return {"createIndexes": collection.name, "indexes": specs, "maxTimeMS": DDL_DEADLINE_MS}
