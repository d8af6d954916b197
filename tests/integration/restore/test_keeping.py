"""Many small collections that give way to themselves stay, and end as the backup has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from bson import Binary, Int64, Timestamp
from pymongo import MongoClient

from agent import faults
from agent.errors import StorageUnavailable
from agent.operations.restore import keeping
from agent.storage.memory import MemoryStorage
from tests.support.compare import Fingerprint, assert_same, fingerprint
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup

Client = MongoClient[dict[str, Any]]
KEPT = 8
POINTS = ("restore.before_drop", "restore.dropped", "restore.created", "restore.chunk_loaded")


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keeping, "KEEP_FROM", KEPT)
    yield
    faults.arm("")


def fill(client: Client) -> None:
    for number in range(KEPT + 4):
        rows = [{"_id": row, "n": number} for row in range(5)]
        client["many"][f"c{number}"].insert_many(rows)
    # An insert would put the time in its place.
    client["many"]["c0"].update_many({}, {"$set": {"at": Timestamp(0, 0)}})
    client["many"]["c0"].create_index("n")
    client["many"]["c1"].create_index("n", hidden=True)
    client["many"]["unique"].create_index("k", unique=True)
    client["many"]["unique"].insert_one({"k": 1})
    client["many"].create_collection("ring", capped=True, size=4096)
    client["many"]["ring"].insert_many({"n": n} for n in range(3))
    client["many"].create_collection("empty")
    client["many"].command({"collMod": "c2", "validator": {"n": {"$type": "number"}}})


def spoil(client: Client) -> None:
    """Everything that may be wrong with a collection that stays, and with some that cannot."""
    many = client["many"]
    many["c0"].delete_many({"_id": {"$lt": 3}})
    many["c1"].update_many({}, {"$set": {"n": "other"}})
    many["c1"].insert_many({"_id": f"more {n}"} for n in range(300))
    many["c2"].delete_one({"_id": 1})
    many["c2"].insert_one({"_id": Int64(1), "n": 1.0})
    many["c3"].create_index("n")
    many["c4"].drop()
    many["c4"].insert_one({"_id": "another collection of this name"})
    many["c5"].rename("renamed")
    many["empty"].insert_one({"_id": 1})
    many["unique"].delete_many({})
    many["ring"].insert_one({"n": "later"})
    many["new"].insert_one({"_id": 1})


def created_since(client: Client, before: Timestamp) -> set[str]:
    found = client["local"]["oplog.rs"].find(
        {"op": "c", "ns": "many.$cmd", "ts": {"$gt": before}, "o.create": {"$exists": True}}
    )
    names = {str(entry["o"]["create"]) for entry in found}
    return {name for name in names if not name.startswith("tidelogTmp")}


def uuids(client: Client) -> dict[str, Binary]:
    listed = client["many"].list_collections(filter={"type": "collection"})
    return {row["name"]: row["info"]["uuid"] for row in listed}


def now(client: Client) -> Timestamp:
    found: Timestamp = client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    return found


@pytest.mark.parametrize("spec", [{}, {"ns": ("many.*",)}])
async def test_only_what_changed_its_shape_is_made_anew(
    one_node: ReplicaSet, spec: dict[str, Any]
) -> None:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    expected, names = fingerprint(client), uuids(client)
    spoil(client)
    before = now(client)
    await RestoreRun.of(node, storage, backup, **spec).work()
    await node.aclose()
    assert_same(expected, fingerprint(client))
    assert uuids(client) == names
    assert created_since(client, before) == {"c3", "c4", "c5", "unique", "ring", "empty"}


async def test_documents_that_are_as_they_should_be_are_not_written(one_node: ReplicaSet) -> None:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    client["many"]["c0"].update_one({"_id": 0}, {"$set": {"n": "other"}})
    before = now(client)
    await RestoreRun.of(node, storage, backup).work()
    await node.aclose()
    written = [
        inner
        for entry in client["local"]["oplog.rs"].find({"ts": {"$gt": before}})
        for inner in entry["o"].get("applyOps", [entry])
        if inner["ns"].startswith("many.c")
    ]
    assert {one["ns"] for one in written if one["op"] != "c"} == {"many.c0"}
    assert len(written) < 5


async def test_what_the_oplog_does_to_indexes_reaches_collections_that_stay(
    one_node: ReplicaSet,
) -> None:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    expected: Fingerprint = {}

    async def change() -> None:
        many = client["many"]
        many["c0"].drop_index("n_1")
        many.command({"collMod": "c1", "index": {"name": "n_1", "hidden": False}})
        many["c2"].create_index("n", sparse=True)
        many["c3"].insert_one({"_id": 5, "n": 5})
        many["c6"].drop()
        many["c7"].rename("seventh")
        expected.update(fingerprint(client))

    backup = await take_backup(node, storage, before_end=change)
    await RestoreRun.of(node, storage, backup).work()
    assert_same(expected, fingerprint(client))
    client["many"]["c0"].create_index("n")
    client["many"]["c3"].delete_many({})
    await RestoreRun.of(node, storage, backup).work()
    await node.aclose()
    assert_same(expected, fingerprint(client))


@pytest.mark.parametrize("point", POINTS)
async def test_another_worker_goes_on_with_collections_that_stay(
    one_node: ReplicaSet, point: str
) -> None:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    expected = fingerprint(client)
    spoil(client)
    run = RestoreRun.of(node, storage, backup)
    faults.arm(f"{point}=transient@1")
    with suppress(StorageUnavailable):
        await run.work()
    faults.arm("")
    await run.work()
    await node.aclose()
    assert_same(expected, fingerprint(client))


def views(client: Client) -> None:
    client["many"].create_collection("view", viewOn="c0", pipeline=[])


def large(client: Client) -> None:
    client["many"]["c7"].insert_many({"text": "x" * 10_000} for _ in range(100))


@pytest.mark.parametrize("change", [views, large])
async def test_where_too_much_is_different_the_database_is_dropped(
    one_node: ReplicaSet, change: Callable[[Client], None]
) -> None:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    expected = fingerprint(client)
    await asyncio.to_thread(change, client)
    before = now(client)
    await RestoreRun.of(node, storage, backup).work()
    await node.aclose()
    assert_same(expected, fingerprint(client))
    assert {f"c{number}" for number in range(KEPT + 4)} <= created_since(client, before)
