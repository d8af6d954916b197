"""Changes of the catalogue: collections, views, databases. Indexes are in `indexing`."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.support.workload.actions import Action
from tests.support.workload.dml import Command, insert
from tests.support.workload.model import WRITABLE, Catalogue, Collection
from tests.support.workload.values import COLLECTION_NAMES, document

FAR_S: Final = 1_500_000_000
"""A time to live that no document of a test reaches."""

DDL_DEADLINE_MS: Final = 8_000

CREATE_OPTIONS: Final[dict[str, tuple[Command, ...]]] = {
    "plain": (
        {},
        {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zlib"}}},
    ),
    "validated": (
        {"validator": {"n": {"$not": {"$lt": -5}}}, "validationLevel": "moderate"},
        {
            "validator": {"$jsonSchema": {"properties": {"n": {"bsonType": "number"}}}},
            "validationAction": "warn",
        },
    ),
    "collation": (
        {"collation": {"locale": "en", "strength": 2}},
        {"collation": {"locale": "de", "numericOrdering": True, "caseFirst": "upper"}},
    ),
    "capped": (
        {"capped": True, "size": 64 * 1024},
        {"capped": True, "size": 1024 * 1024, "max": 50},
    ),
    "clustered": (
        {"clusteredIndex": {"key": {"_id": 1}, "unique": True, "name": "by id"}},
        {
            "clusteredIndex": {"key": {"_id": 1}, "unique": True},
            "expireAfterSeconds": FAR_S,
        },
    ),
    "timeseries": (
        {"timeseries": {"timeField": "t", "metaField": "m", "granularity": "seconds"}},
        {
            "timeseries": {"timeField": "t", "metaField": "m", "granularity": "minutes"},
            "expireAfterSeconds": FAR_S,
        },
    ),
    "images": ({"changeStreamPreAndPostImages": {"enabled": True}},),
}

_BASES: Final = WRITABLE | {"view", "timeseries"}


def create(rng: random.Random, catalogue: Catalogue) -> Action:
    """A new collection of any kind, often with its first documents."""
    spot = catalogue.unused(rng)
    if spot is None:
        return drop(rng, catalogue)
    return _created("create", rng, catalogue, *spot, before=())


def recreate(rng: random.Random, catalogue: Catalogue) -> Action:
    """Drop a collection and make another under its name at once, of another kind as like as not."""
    old = catalogue.pick(rng, WRITABLE)
    if old is None:
        return create(rng, catalogue)
    before: tuple[Command, ...] = ({"drop": old.name},)
    return _created("recreate", rng, catalogue, old.database, old.name, before=before)


def drop(rng: random.Random, catalogue: Catalogue) -> Action:
    """A collection goes."""
    old = catalogue.pick(rng, WRITABLE | {"timeseries"})
    if old is None:
        return create(rng, catalogue)
    catalogue.forget(old)
    return Action("drop", old.database, ({"drop": old.name},))


def rename(rng: random.Random, catalogue: Catalogue) -> Action:
    """A new name in the same database, or in another (then the server copies)."""
    old = catalogue.pick(rng, WRITABLE)
    spot = catalogue.unused(rng)
    if old is None or spot is None:
        return create(rng, catalogue)
    crosses = rng.random() < 0.3
    database, name = spot if crosses else (old.database, spot[1])
    return _rename(
        "rename_across" if database != old.database else "rename", catalogue, old, database, name
    )


def rename_over(rng: random.Random, catalogue: Catalogue) -> Action:
    """A new name that another collection has, which goes."""
    old, target = catalogue.pick(rng, WRITABLE), catalogue.pick(rng, WRITABLE)
    if old is None or target is None or old is target:
        return create(rng, catalogue)
    return _rename("rename_over", catalogue, old, target.database, target.name, over=True)


def change_collection(rng: random.Random, catalogue: Catalogue) -> Action:
    """collMod of collection options."""
    collection = catalogue.pick(rng, WRITABLE | {"timeseries"})
    if collection is None:
        return create(rng, catalogue)
    changes: list[Command] = [
        {"validator": {"n": {"$not": {"$lt": -rng.randrange(5, 50)}}}, "validationLevel": "strict"},
        {"validator": {}, "validationLevel": "off"},
        {"validationAction": "warn"},
        {"changeStreamPreAndPostImages": {"enabled": rng.random() < 0.5}},
    ]
    if collection.kind == "capped":
        changes = [{"cappedSize": 128 * 1024 + 256 * rng.randrange(50)}, {"cappedMax": 60}]
    elif collection.kind == "timeseries":
        changes = [
            {"timeseries": {"granularity": rng.choice(["minutes", "hours"])}},
            {"expireAfterSeconds": FAR_S - rng.randrange(1_000)},
        ]
    elif collection.kind == "clustered":
        changes = [{"expireAfterSeconds": FAR_S - rng.randrange(1_000)}]
    command = {"collMod": collection.name, **rng.choice(changes)}
    return Action("change_collection", collection.database, (command,))


def convert_to_capped(rng: random.Random, catalogue: Catalogue) -> Action:
    """The server rewrites the collection under a new UUID, without its secondary indexes."""
    old = catalogue.pick(rng, frozenset({"plain"}))
    if old is None:
        return create(rng, catalogue)
    catalogue.add(old.database, old.name, "capped")
    command = {"convertToCapped": old.name, "size": 1 << 20, "maxTimeMS": DDL_DEADLINE_MS}
    return Action("convert_to_capped", old.database, (command,))


def output(rng: random.Random, catalogue: Catalogue) -> Action:
    """$out and $merge: the first writes a temporary collection and renames it over the target."""
    source = catalogue.pick(rng, WRITABLE | {"view"})
    if source is None:
        return create(rng, catalogue)
    name = rng.choice(COLLECTION_NAMES)
    stage: Command = {"$merge": {"into": name, "on": "_id", "whenMatched": "replace"}}
    if rng.random() < 0.5:
        stage = {"$out": name}
    pipeline = [{"$match": {"n": {"$lt": 40}}}, stage]
    command = {"aggregate": source.name, "pipeline": pipeline, "cursor": {}}
    known = {one.name for one in catalogue.in_database(source.database)}
    if name not in known:
        catalogue.add(source.database, name, "plain")
    return Action("output", source.database, (command,))


def drop_database(rng: random.Random, catalogue: Catalogue) -> Action:
    """A whole database goes; the next write to it brings it back."""
    database = rng.choice(catalogue.databases)
    catalogue.forget_database(database)
    return Action("drop_database", database, ({"dropDatabase": 1},))


def create_view(rng: random.Random, catalogue: Catalogue) -> Action:
    """A view on a collection, a time series or another view."""
    base, spot = catalogue.pick(rng, _BASES), catalogue.unused(rng)
    if base is None or spot is None:
        return create(rng, catalogue)
    name = spot[1]
    if any(one.name == name for one in catalogue.in_database(base.database)):
        return change_view(rng, catalogue)
    catalogue.add(base.database, name, "view")
    command = {"create": name, "viewOn": base.name, "pipeline": _view_pipeline(rng)}
    return Action("create_view", base.database, (command,))


def change_view(rng: random.Random, catalogue: Catalogue) -> Action:
    """A view gets another base and pipeline, or goes."""
    view = catalogue.pick(rng, frozenset({"view"}))
    if view is None:
        return change_collection(rng, catalogue)
    if rng.random() < 0.4:
        catalogue.forget(view)
        return Action("drop_view", view.database, ({"drop": view.name},))
    bases = [one for one in catalogue.in_database(view.database) if one.kind in WRITABLE]
    base = rng.choice(bases).name if bases else "nothing yet"
    command = {"collMod": view.name, "viewOn": base, "pipeline": _view_pipeline(rng)}
    return Action("change_view", view.database, (command,))


def _created(
    kind: str,
    rng: random.Random,
    catalogue: Catalogue,
    database: str,
    name: str,
    *,
    before: tuple[Command, ...],
) -> Action:
    form = rng.choice(list(CREATE_OPTIONS))
    made = catalogue.add(database, name, form)
    commands: list[Command] = [*before, {"create": name, **rng.choice(CREATE_OPTIONS[form])}]
    if form != "timeseries" and rng.random() < 0.8:
        commands.append(insert(made, [document(rng) for _ in range(rng.randrange(1, 20))]))
    return Action(kind, database, tuple(commands))


def _rename(
    kind: str,
    catalogue: Catalogue,
    old: Collection,
    database: str,
    name: str,
    *,
    over: bool = False,
) -> Action:
    command = {
        "renameCollection": old.namespace,
        "to": f"{database}.{name}",
        "dropTarget": over,
        "maxTimeMS": DDL_DEADLINE_MS,
    }
    catalogue.rename(old, database, name)
    return Action(kind, "admin", (command,))


def _view_pipeline(rng: random.Random) -> list[dict[str, Any]]:
    return rng.choice(
        [
            [],
            [{"$match": {"n": {"$gt": rng.randrange(50)}}}],
            [{"$project": {"n": 1, "double": {"$multiply": ["$n", 2]}}}],
        ]
    )
