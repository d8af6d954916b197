"""Whether two replica sets hold the same: mongod's own hashes, and the catalogue beside them.

`dbHash` hashes each collection in `_id` order, the buckets of time series and `system.views`
included. It does not see collection options, index specs, the natural order of capped collections,
UUIDs, nor users apart from other documents of `admin`; those are read here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import bson
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tests.support.documents import (
    describe_difference,
    describe_document,
    index_documents,
    read_raw,
)

Fingerprint = dict[str, Any]

# What belongs to the server or to Tidelog itself, not to the users' data.
_FOREIGN_DATABASES: Final = frozenset({"config", "local"})
_FOREIGN_ADMIN: Final = frozenset({"system.version", "system.keys", "system.users", "system.roles"})
_CONTROL_PREFIX: Final = "tidelog"
_SHOWN_DOCUMENTS: Final = 5
_UNKNOWN_FIELD: Final = 40415


def fingerprint(
    client: MongoClient[dict[str, Any]],
    *,
    at: Timestamp | None = None,
    documents_mb: int = 16,
    databases: Iterable[str] | None = None,
) -> Fingerprint:
    """Everything that two equal replica sets have in common, as plain data.

    `at` takes the hashes at a past cluster time while writes go on (the server keeps five minutes);
    collections must not be created, dropped or renamed since then, and capped ones are read as they
    are now. Documents are kept up to `documents_mb` a collection so that `diff` can name them.
    """
    names = client.list_database_names() if databases is None else list(databases)
    return {
        "databases": {
            name: _database(client, name, at, documents_mb << 20)
            for name in sorted(names)
            if name not in _FOREIGN_DATABASES
        },
        "users": _principals(client, "system.users"),
        "roles": _principals(client, "system.roles"),
    }


def diff(
    a: Fingerprint,
    b: Fingerprint,
    *,
    uuids: bool = True,
    principals: bool = True,
    ignore_users: Iterable[str] = (),
) -> list[str]:
    """In words, everything that differs; empty when the two are the same."""
    found: list[str] = []
    before, after = _without_empty(a["databases"]), _without_empty(b["databases"])
    for database in sorted({*before, *after}):
        left, right = before.get(database, {}), after.get(database, {})
        for name in sorted({*left, *right}):
            where = f"{database}.{name}"
            found += _collection_diff(where, left.get(name), right.get(name), uuids=uuids)
    if principals:
        ignored = set(ignore_users)
        found += _principal_diff("user", a["users"], b["users"], ignored)
        found += _principal_diff("role", a["roles"], b["roles"], ignored)
    return found


def assert_same(a: Fingerprint, b: Fingerprint, **options: Any) -> None:
    """Fail with every difference."""
    found = diff(a, b, **options)
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:60])


def counts(taken: Fingerprint) -> tuple[int, int]:
    """How many collections and views, and how many indexes, the fingerprint holds."""
    collections = [one for database in taken["databases"].values() for one in database.values()]
    return len(collections), sum(len(one["indexes"]) for one in collections)


def _database(
    client: MongoClient[dict[str, Any]], database: str, at: Timestamp | None, limit: int
) -> dict[str, Any]:
    command: dict[str, Any] = {"dbHash": 1}
    if at is not None:
        command["$_internalReadAtClusterTime"] = at
    hashes = client[database].command(command)["collections"]
    return {
        info["name"]: _collection(client, database, info, hashes, at=at, limit=limit)
        for info in client[database].list_collections()
        if not _is_foreign(database, info["name"])
    }


def _is_foreign(database: str, name: str) -> bool:
    if name == "system.profile":
        return True
    return database == "admin" and (name in _FOREIGN_ADMIN or name.startswith(_CONTROL_PREFIX))


def _collection(
    client: MongoClient[dict[str, Any]],
    database: str,
    info: Mapping[str, Any],
    hashes: Mapping[str, str],
    *,
    at: Timestamp | None,
    limit: int,
) -> dict[str, Any]:
    name = info["name"]
    uuid = info["info"].get("uuid")
    described = {
        "type": info["type"],
        "options": dict(info["options"]),
        "uuid": None if uuid is None else bytes(uuid).hex(),
        "hash": None,
        "natural": None,
        "documents": None,
        "indexes": {},
    }
    if info["type"] != "collection":
        return described
    capped = bool(info["options"].get("capped"))
    described["indexes"] = _indexes(client, database, name)
    described["hash"] = hashes.get(name)
    if described["hash"] is None:
        described["hash"] = _own_hash(read_raw(client, database, name, at=None if capped else at))
    if capped:
        described["natural"] = _own_hash(read_raw(client, database, name), in_order=True)
    if limit:
        documents = read_raw(client, database, name, at=None if capped else at)
        described["documents"] = _up_to(documents, limit)
    return described


def _indexes(
    client: MongoClient[dict[str, Any]], database: str, name: str
) -> dict[str, dict[str, Any]]:
    # The server lists indexes that are still being built, too, and tells only when asked.
    command = {"listIndexes": name, "includeBuildUUIDs": True, "cursor": {"batchSize": 1_000}}
    try:
        listed = client[database].command(command)["cursor"]["firstBatch"]
    except OperationFailure as error:
        if error.code != _UNKNOWN_FIELD:
            raise
        # 6.0 cannot tell of an index of a time series that is being built.
        (row,) = client[database][name].aggregate([{"$listCatalog": {}}])
        listed = [index["spec"] for index in row["md"]["indexes"] if index["ready"]]
    return {spec["name"]: spec for spec in listed if "buildUUID" not in spec}


def _own_hash(documents: Iterator[bytes], *, in_order: bool = False) -> str:
    digests = [hashlib.md5(raw).digest() for raw in documents]
    return hashlib.md5(b"".join(digests if in_order else sorted(digests))).hexdigest()


def _up_to(documents: Iterator[bytes], limit: int) -> list[bytes] | None:
    kept: list[bytes] = []
    size = 0
    for raw in documents:
        size += len(raw)
        if size > limit:
            return None
        kept.append(bytes(raw))
    return kept


def _principals(client: MongoClient[dict[str, Any]], collection: str) -> dict[str, Any]:
    kept = {}
    for raw in read_raw(client, "admin", collection):
        document = bson.decode(raw)
        if "credentials" in document:
            document["credentials"] = hashlib.md5(bson.encode(document["credentials"])).hexdigest()
        kept[str(document["_id"])] = document
    return kept


def _without_empty(databases: Mapping[str, Any]) -> dict[str, Any]:
    # A database is nothing but its collections: the server forgets it with the last one.
    return {name: collections for name, collections in databases.items() if collections}


def _collection_diff(
    where: str, a: dict[str, Any] | None, b: dict[str, Any] | None, *, uuids: bool
) -> list[str]:
    if a is None or b is None:
        present = b if a is None else a
        assert present is not None
        return [f"{where}: {present['type']} only in the {'second' if a is None else 'first'}"]
    found = []
    if a["type"] != b["type"]:
        found.append(f"{where}: {a['type']} against {b['type']}")
    if uuids and a["uuid"] != b["uuid"]:
        found.append(f"{where}: UUID {a['uuid']} against {b['uuid']}")
    found += _field_diff(f"{where}: option", a["options"], b["options"])
    for name in sorted({*a["indexes"], *b["indexes"]}):
        left, right = a["indexes"].get(name), b["indexes"].get(name)
        if left is None or right is None:
            found.append(
                f"{where}: index {name} only in the {'second' if left is None else 'first'}"
            )
        else:
            found += _field_diff(f"{where}: index {name}:", left, right)
    if a["hash"] != b["hash"]:
        found += _content_diff(where, a["documents"], b["documents"])
    elif a["natural"] != b["natural"]:
        found.append(f"{where}: same documents, other natural order")
    return found


def _field_diff(where: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    # The order of the top level is the server's business; below it, order and number types count.
    found = []
    for key in sorted({*a, *b}):
        if key not in a or key not in b:
            side = "first" if key in a else "second"
            found.append(f"{where} {key} only in the {side}: {a.get(key, b.get(key))!r}")
        elif bson.encode({"": a[key]}) != bson.encode({"": b[key]}):
            found.append(f"{where} {key}: {a[key]!r} against {b[key]!r}")
    return found


def _content_diff(where: str, a: list[bytes] | None, b: list[bytes] | None) -> list[str]:
    if a is None or b is None:
        return [f"{where}: dbHash differs (documents not kept)"]
    left, right = index_documents(a), index_documents(b)
    lines = []
    for key in [*left, *(key for key in right if key not in left)]:
        if key not in right:
            lines.append(f"{where}: {describe_document(left[key])} only in the first")
        elif key not in left:
            lines.append(f"{where}: {describe_document(right[key])} only in the second")
        elif left[key] != right[key]:
            detail = describe_difference(left[key], right[key])
            lines.append(f"{where}: {describe_document(left[key])}: {detail}")
    rest = len(lines) - _SHOWN_DOCUMENTS
    shown = lines[:_SHOWN_DOCUMENTS]
    if rest > 0:
        shown.append(f"{where}: … and {rest} more documents")
    head = f"{where}: dbHash differs, {len(a)} documents against {len(b)}"
    return [head, *shown]


def _principal_diff(
    kind: str, a: Mapping[str, Any], b: Mapping[str, Any], ignored: set[str]
) -> list[str]:
    found = []
    for name in sorted({*a, *b} - ignored):
        if name not in a or name not in b:
            found.append(f"{kind} {name} only in the {'first' if name in a else 'second'}")
        else:
            found += _field_diff(f"{kind} {name}:", a[name], b[name])
    return found
