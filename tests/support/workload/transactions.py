"""Multi-document transactions: small, aborted, larger than one oplog entry, prepared."""

from __future__ import annotations

import random

from tests.support.workload.actions import Action, Mode
from tests.support.workload.dml import Command, insert, remove, update
from tests.support.workload.model import Catalogue, Collection
from tests.support.workload.values import document, scalar, some_identifier

# A transaction may write to any of these; capped collections it may not write to at all.
_TARGETS = frozenset({"plain", "validated", "collation", "clustered", "images"})


def small(rng: random.Random, catalogue: Catalogue) -> Action:
    """A few writes to a few collections, committed."""
    return _transaction("txn_small", rng, catalogue, Mode.COMMIT)


def aborted(rng: random.Random, catalogue: Catalogue) -> Action:
    """The same, aborted: nothing of it may ever be seen."""
    return _transaction("txn_aborted", rng, catalogue, Mode.ABORT)


def prepared(rng: random.Random, catalogue: Catalogue) -> Action:
    """Prepared and then committed, as a shard does in a two-phase commit."""
    return _transaction("txn_prepared", rng, catalogue, Mode.PREPARE_COMMIT)


def prepared_aborted(rng: random.Random, catalogue: Catalogue) -> Action:
    """Prepared and then aborted."""
    return _transaction("txn_prepared_aborted", rng, catalogue, Mode.PREPARE_ABORT)


def large(rng: random.Random, catalogue: Catalogue) -> Action:
    """More than 16 MB: the server writes it as a chain of oplog entries."""
    return _large("txn_large", rng, catalogue, Mode.COMMIT)


def large_prepared(rng: random.Random, catalogue: Catalogue) -> Action:
    """A chain of oplog entries that ends in a prepare."""
    return _large("txn_large_prepared", rng, catalogue, Mode.PREPARE_COMMIT)


def creating(rng: random.Random, catalogue: Catalogue) -> Action:
    """A collection and an index made inside of a transaction, with documents."""
    spot = catalogue.unused(rng)
    if spot is None:
        return small(rng, catalogue)
    collection = catalogue.add(*spot, "plain")
    collection.indexes.append("made_in_txn")
    index = {"key": {"a": 1, "n": -1}, "name": "made_in_txn"}
    commands = (
        {"create": collection.name},
        {"createIndexes": collection.name, "indexes": [index]},
        insert(collection, [document(rng) for _ in range(3)]),
    )
    return Action("txn_creating", collection.database, commands, Mode.COMMIT)


def _transaction(kind: str, rng: random.Random, catalogue: Catalogue, mode: Mode) -> Action:
    first = _target(rng, catalogue)
    commands: list[Command] = []
    for _ in range(rng.randrange(1, 7)):
        collection = _target(rng, catalogue)
        # All commands of an action go to one database.
        if collection.database != first.database:
            collection = first
        commands.append(_write(rng, collection))
    return Action(kind, first.database, tuple(commands), mode)


def _large(kind: str, rng: random.Random, catalogue: Catalogue, mode: Mode) -> Action:
    collection = _target(rng, catalogue)
    tag = catalogue.serial()
    commands = tuple(
        insert(
            collection,
            [{"_id": f"large-{tag}-{part}", "u": -(tag * 100 + part), "pad": "x" * 1_000_000}],
        )
        for part in range(18)
    )
    return Action(kind, collection.database, commands, mode)


def _target(rng: random.Random, catalogue: Catalogue) -> Collection:
    return catalogue.pick(rng, _TARGETS) or catalogue.writable(rng)


def _write(rng: random.Random, collection: Collection) -> Command:
    form = rng.randrange(4)
    query = {"_id": some_identifier(rng)}
    if form == 0:
        # Without `_id` of ours: a duplicate would end the transaction.
        made = {**document(rng, padding=50), "u": -rng.getrandbits(40)}
        made["_id"] = f"txn-{rng.getrandbits(48):x}"
        return insert(collection, [made])
    if form == 1:
        return remove(collection, query)
    if form == 2:
        return update(collection, query, {"$set": {"a": scalar(rng)}}, upsert=True)
    return update(collection, query, {"$inc": {"n": 1}, "$push": {"arr": 7}})
