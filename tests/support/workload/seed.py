"""A small data set with one of everything a backup must carry over. The same each time."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.database import Database

from tests.support.workload.ddl import CREATE_OPTIONS
from tests.support.workload.indexing import INDEX_SPECS
from tests.support.workload.values import (
    COLLECTION_NAMES,
    IDENTIFIERS,
    document,
    measurement,
)

Store = Database[dict[str, Any]]
Client = MongoClient[dict[str, Any]]

_SYMBOL, _STRING, _UNDEFINED, _NULL = b"\x0e", b"\x02", b"\x06", b"\x0a"
_MAX_DOCUMENT: Final = 16 * 1024 * 1024


def seed_everything(
    client: Client,
    *,
    large: bool = True,
    collections: int = 0,
    principals: bool = True,
    seed: int = 7,
) -> None:
    """Fill empty databases with every kind of collection, index, option, document, user and role.

    `large` adds a document of 16 MiB to the byte, `collections` so many small collections.
    """
    rng = random.Random(seed)
    main = client["seed"]
    _every_identifier(main, rng)
    _every_index(main, rng)
    _every_kind(main, rng)
    _time_series(main, rng)
    _views(main)
    _raw_types(main)
    _odd_names(client, rng)
    _hollow(client["seed_hollow"])
    if large:
        _largest_document(main)
    if collections:
        _many(client["seed_many"], collections)
    if principals:
        _principals(client)


def _every_identifier(db: Store, rng: random.Random) -> None:
    # Booleans and the like come more than once among the numbers.
    seen: dict[bytes, dict[str, Any]] = {}
    for number in range(IDENTIFIERS):
        made = document(rng, number)
        seen.setdefault(bson.encode({"": made["_id"]}), made)
    _insert(db, "mixed ids", seen.values())


def _every_index(db: Store, rng: random.Random) -> None:
    documents = [document(rng, number, padding=60) for number in range(0, IDENTIFIERS, 3)]
    unique = {bson.encode({"": one["_id"]}): one for one in documents}
    # Two indexes of a collection may not differ in name alone, and one may be text.
    for name, spec in INDEX_SPECS.items():
        _insert(db, f"index.{name}", unique.values())
        db.command({"createIndexes": f"index.{name}", "indexes": [{**spec, "name": name}]})
    compatible = [
        {**spec, "name": name} for name, spec in INDEX_SPECS.items() if "hashed" not in name
    ]
    _insert(db, "all indexes", unique.values())
    db.command({"createIndexes": "all indexes", "indexes": compatible})
    db.command({"collMod": "all indexes", "index": {"name": "single", "hidden": True}})


def _every_kind(db: Store, rng: random.Random) -> None:
    for kind, variants in CREATE_OPTIONS.items():
        if kind == "timeseries":
            continue
        for number, options in enumerate(variants):
            name = f"kind.{kind}.{number}"
            db.command({"create": name, **options})
            documents = [document(rng, one * 16) for one in range(IDENTIFIERS // 16)]
            _insert(db, name, documents)
            if kind != "capped":
                key = {"key": {"n": 1, "s": 1}, "name": "n_s"}
                db.command({"createIndexes": name, "indexes": [key]})
    changed = {"validator": {"n": {"$type": "number"}}, "validationAction": "warn"}
    db.command({"collMod": "kind.validated.0", **changed})
    db.command({"create": "default index options", "indexOptionDefaults": _ENGINE_OPTIONS})


def _time_series(db: Store, rng: random.Random) -> None:
    for number, options in enumerate(CREATE_OPTIONS["timeseries"]):
        name = f"kind.timeseries.{number}"
        db.command({"create": name, **options})
        _insert(db, name, [measurement(rng) for _ in range(150)])
        db.command(
            {
                "createIndexes": name,
                "indexes": [{"key": {"m.sensor": 1, "t": 1}, "name": "sensor_t"}],
            }
        )
    db.command({"create": "no meta.timeseries", "timeseries": {"timeField": "t"}})


def _views(db: Store) -> None:
    match = [{"$match": {"n": {"$gt": 20}}}]
    db.command({"create": "view", "viewOn": "mixed ids", "pipeline": match})
    db.command({"create": "view on view", "viewOn": "view", "pipeline": [{"$project": {"n": 1}}]})
    db.command({"create": "view on series", "viewOn": "kind.timeseries.0", "pipeline": []})
    collation = {"locale": "sv", "strength": 3}
    command = {"create": "view on nothing", "viewOn": "is not there", "pipeline": []}
    db.command({**command, "collation": collation})


def _raw_types(db: Store) -> None:
    """Values no current driver writes, but old ones did."""
    symbol = bson.encode({"_id": 1, "symbol": "old"}).replace(
        _STRING + b"symbol\0", _SYMBOL + b"symbol\0"
    )
    undefined = bson.encode({"_id": 2, "undefined": None}).replace(
        _NULL + b"undefined\0", _UNDEFINED + b"undefined\0"
    )
    doubled = bson.encode({"_id": 3, "twice": 1, "twicf": 2}).replace(b"twicf\0", b"twice\0")
    # Year 292278994: a date that Python's own type cannot hold.
    far = bson.encode({"_id": 4, "date": bson.DatetimeMS(2**63 - 1)})
    odd = bson.encode({"_id": 5, "": 1, "a.b": 2, "$c": 3, "deep": _nested(90)})
    _insert(
        db, "raw types", [RawBSONDocument(raw) for raw in (symbol, undefined, doubled, far, odd)]
    )


def _odd_names(client: Client, rng: random.Random) -> None:
    for name in ("seed-odd", "seed_ünï", "seedUPPER"):
        for collection in COLLECTION_NAMES:
            _insert(client[name], collection, [document(rng, 1), document(rng, 2)])
        spec = {"key": {"ключ.ü": 1, "with space": -1}, "name": "имя index 名 ."}
        client[name].command({"createIndexes": "two words", "indexes": [spec]})


def _hollow(db: Store) -> None:
    """A database whose only collection is empty."""
    db.command({"create": "empty"})
    db.command({"createIndexes": "empty", "indexes": [{"key": {"a": 1}, "name": "a"}]})


def _largest_document(db: Store) -> None:
    empty = len(bson.encode({"_id": 0, "pad": b""}))
    largest = {"_id": 0, "pad": random.Random(1).randbytes(_MAX_DOCUMENT - empty)}
    for number in range(2):
        _insert(db, "largest", [{**largest, "_id": number}])


def _many(db: Store, collections: int) -> None:
    for number in range(collections):
        # An index each on a few: most time goes into making the files.
        name = f"c{number:05d}"
        if number % 10 == 0:
            spec = {"key": {"n": 1}, "name": "n"}
            db.command({"createIndexes": name, "indexes": [spec], "writeConcern": {"w": 1}})
        _insert(db, name, [{"_id": one, "n": number} for one in range(number % 4)] or [{}])


def _principals(client: Client) -> None:
    seed = client["seed"]
    read = {"resource": {"db": "seed", "collection": ""}, "actions": ["find"]}
    seed.command({"createRole": "reader", "privileges": [read], "roles": []})
    inherited = [{"role": "reader", "db": "seed"}]
    client.admin.command({"createRole": "seed_wide", "privileges": [], "roles": inherited})
    seed.command({"createUser": "ännä", "pwd": "pass word", "roles": ["reader", "readWrite"]})
    command = {"createUser": "only256", "pwd": "p", "roles": [], "mechanisms": ["SCRAM-SHA-256"]}
    seed.command({**command, "customData": {"n": 1, "list": [1, "a"]}})


def _insert(db: Store, name: str, documents: Iterable[Any]) -> None:
    reply = db.command({"insert": name, "documents": list(documents), "writeConcern": {"w": 1}})
    assert "writeErrors" not in reply, reply["writeErrors"][0]


def _nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {"bottom": True}
    for _ in range(depth):
        made = {"d": made}
    return made


_ENGINE_OPTIONS: Final = {
    "storageEngine": {"wiredTiger": {"configString": "prefix_compression=true"}}
}
