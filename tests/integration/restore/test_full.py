"""A full restore makes the target equal to the source."""

from __future__ import annotations

import asyncio

from bson import Timestamp

from agent.storage.memory import MemoryStorage
from tests.support.compare import assert_same, fingerprint
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup
from tests.support.workload import seed_everything


async def test_everything_comes_back_as_it_was(one_node: ReplicaSet) -> None:
    client = one_node.client()
    await asyncio.to_thread(seed_everything, client)
    before = fingerprint(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    try:
        backup = await take_backup(node, storage)
        client["seed"]["mixed ids"].delete_many({})
        client["seed"].drop_collection("view")
        client["unwanted"]["c"].insert_one({})
        report = await RestoreRun.of(node, storage, backup).work()
    finally:
        await node.aclose()
    assert_same(before, fingerprint(client))
    assert report["restored_to"] == backup.last_write.to_json()
    assert report["warnings"] == []


async def test_empty_timestamps_stay_empty(one_node: ReplicaSet) -> None:
    client = one_node.client()
    collection = client["db"]["c"]
    empty = Timestamp(0, 0)
    collection.insert_many([{"_id": n} for n in range(5)])
    collection.update_one({"_id": 1}, {"$set": {"a": empty, "b": {"c": empty}}})
    node, storage = await open_node(one_node), await MemoryStorage.open()

    async def write() -> None:
        collection.update_one({"_id": 2}, {"$set": {"a": empty}})
        collection.update_one({"_id": "new"}, {"$set": {"a": empty}}, upsert=True)
        collection.update_one({"_id": 3}, [{"$replaceWith": {"_id": 3, "a": empty}}])
        collection.update_one({"_id": "new"}, {"$set": {"b": 1}})

    try:
        backup = await take_backup(node, storage, before_end=write)
        before = fingerprint(client)
        collection.drop()
        await RestoreRun.of(node, storage, backup).work()
    finally:
        await node.aclose()
    assert_same(before, fingerprint(client))
    assert collection.count_documents({"a": empty}) == 4
