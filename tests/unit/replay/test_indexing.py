"""Index commands are folded into what is to be built in the end."""

from __future__ import annotations

from typing import Any

from bson import Int64

from agent.replay import indexing

ID = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
A = {"v": 2, "key": {"a": 1}, "name": "a_1"}
B = {"v": 2, "key": {"b": 1}, "name": "b_1", "unique": True}


def indexes(*specs: dict[str, Any]) -> indexing.Indexes:
    return {spec["name"]: dict(spec) for spec in specs}


def test_an_index_of_an_empty_collection_comes_flat() -> None:
    found = indexes(ID)
    indexing.add_flat(found, {"createIndexes": "c", **B})
    assert found == indexes(ID, B)


def test_a_build_counts_when_it_commits() -> None:
    found = indexes(ID)
    indexing.add_built(found, {"commitIndexBuild": "c", "indexes": [A, {**B, "ns": "db.c"}]})
    assert found == indexes(ID, A, B)


def test_indexes_are_dropped_by_name_or_key() -> None:
    found = indexes(ID, A, B)
    indexing.drop(found, {"dropIndexes": "c", "index": "a_1"})
    assert found == indexes(ID, B)
    indexing.drop(found, {"dropIndexes": "c", "index": {"b": 1}})
    assert found == indexes(ID)
    indexing.drop(found, {"dropIndexes": "c", "index": "not there"})
    assert found == indexes(ID)


def test_dropping_all_spares_the_identity() -> None:
    found = indexes(ID, A, B)
    indexing.drop(found, {"dropIndexes": "c", "index": "*"})
    assert found == indexes(ID)


def test_changes_follow_the_server() -> None:
    found = indexes(ID, A)
    assert indexing.change(found, {"name": "a_1", "hidden": True})
    assert indexing.change(found, {"name": "a_1", "expireAfterSeconds": Int64(5)})
    assert indexing.change(found, {"keyPattern": {"a": 1}, "prepareUnique": True})
    assert found["a_1"] == {**A, "hidden": True, "expireAfterSeconds": 5, "prepareUnique": True}
    assert indexing.change(found, {"name": "a_1", "unique": True})
    assert indexing.change(found, {"name": "a_1", "hidden": False})
    assert found["a_1"] == {**A, "expireAfterSeconds": 5, "unique": True}


def test_a_change_of_nothing_is_told() -> None:
    assert not indexing.change(indexes(ID), {"name": "a_1", "hidden": True})
    assert not indexing.change(indexes(ID), {"keyPattern": {"z": 1}, "hidden": True})
