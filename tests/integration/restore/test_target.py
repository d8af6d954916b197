"""Restores onto targets in awkward states."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from agent.errors import RestoreFailed
from agent.mongo import clients
from agent.mongo.apply.target import drop_database
from agent.operations.restore import work
from agent.storage.memory import MemoryStorage
from tests.support.compare import assert_same, fingerprint
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup

Client = MongoClient[dict[str, Any]]
BUILD = "hangAfterSettingUpIndexBuild"


@contextmanager
def hanging(client: Client, point: str = BUILD) -> Iterator[None]:
    client.admin.command({"configureFailPoint": point, "mode": "alwaysOn"})
    try:
        yield
    finally:
        client.admin.command({"configureFailPoint": point, "mode": "off"})


def running(client: Client, command: str) -> bool:
    chosen = {"$match": {f"command.{command}": {"$exists": True}}}
    pipeline: list[dict[str, Any]] = [{"$currentOp": {}}, chosen]
    return bool(list(client.admin.aggregate(pipeline)))


@pytest.mark.parametrize("spec", [{}, {"ns": ("db.c",)}])
async def test_an_index_being_built_there_ends_with_its_collection(
    one_node: ReplicaSet, spec: dict[str, Any]
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n} for n in range(10)])
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    before = fingerprint(client)

    def build() -> None:
        with suppress(PyMongoError):
            client["db"]["c"].create_index("late")

    thread = threading.Thread(target=build)
    with hanging(client):
        thread.start()
        await asyncio.to_thread(eventually, lambda: running(client, "createIndexes"))
        worker = asyncio.create_task(RestoreRun.of(node, storage, backup, **spec).work())
        await asyncio.sleep(1.0)
    try:
        await worker
    finally:
        await node.aclose()
        thread.join()
    assert_same(before, fingerprint(client))


async def test_an_index_build_may_outlast_every_socket(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n} for n in range(10)])
    client["db"]["c"].create_index("a")
    monkeypatch.setattr(clients, "CALL_TIMEOUT_S", 0.3)  # sockets: four times that
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    before = fingerprint(client)
    run = RestoreRun.of(node, storage, backup)
    loaded = threading.Event()

    def hang() -> None:
        if run.result.get("state", {}).get("stage") == "loaded" and not loaded.is_set():
            client.admin.command({"configureFailPoint": BUILD, "mode": "alwaysOn"})
            loaded.set()

    run.on_record = hang
    worker = asyncio.create_task(run.work())
    await asyncio.to_thread(loaded.wait, 30)
    with hanging(client):
        await asyncio.to_thread(eventually, lambda: running(client, "createIndexes"))
        await asyncio.sleep(3.0)
        assert not worker.done()
    try:
        await worker
    finally:
        await node.aclose()
    assert_same(before, fingerprint(client))


async def test_dropping_a_database_may_outlast_every_socket(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_one({"_id": 1})
    monkeypatch.setattr(clients, "CALL_TIMEOUT_S", 0.3)  # sockets: four times that
    node = await open_node(one_node)
    try:
        with hanging(client, "dropDatabaseHangAfterAllCollectionsDrop"):
            drop = asyncio.create_task(drop_database(node, "db"))
            await asyncio.to_thread(eventually, lambda: running(client, "dropDatabase"))
            await asyncio.sleep(2.0)
            assert not drop.done()
        await drop
    finally:
        await node.aclose()
    assert "db" not in client.list_database_names()


async def test_a_database_that_is_still_being_dropped_is_waited_for(one_node: ReplicaSet) -> None:
    """As by the worker before, which died in the middle: the server goes on with its command."""
    client = one_node.client()
    client["db"]["c"].insert_one({"_id": 1})
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    before = fingerprint(client)
    drop = threading.Thread(target=client.drop_database, args=("db",))
    try:
        with hanging(client, "dropDatabaseHangAfterAllCollectionsDrop"):
            drop.start()
            await asyncio.to_thread(eventually, lambda: running(client, "dropDatabase"))
            await asyncio.to_thread(eventually, lambda: not client["db"].list_collection_names())
            worker = asyncio.create_task(RestoreRun.of(node, storage, backup).work())
            await asyncio.sleep(1.0)
            assert not worker.done()
        await worker
    finally:
        await node.aclose()
        drop.join()
    assert_same(before, fingerprint(client))


async def test_what_an_unfinished_restore_left_behind_goes(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"]["c"].insert_one({"_id": 1})
    node, storage = await open_node(one_node), await MemoryStorage.open()
    try:
        backup = await take_backup(node, storage)
        before = fingerprint(client)
        for name in ("tidelogTmpUsers", "tidelogTmpMarker"):
            client.admin[name].insert_one({"_id": "old"})
        client["db"]["tidelogTmp.0123"].insert_one({})
        await RestoreRun.of(node, storage, backup, ns=("db.c",)).work()
    finally:
        await node.aclose()
    assert_same(before, fingerprint(client))
    names = client.admin.list_collection_names()
    assert not [name for name in names if name.startswith("tidelogTmp")]


async def test_what_others_make_while_a_restore_runs_is_told(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n, "a": n} for n in range(10)])
    client["db"]["c"].create_index("a")
    client["other"]["mine"].insert_one({"_id": 1})
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)

    async def told(**spec: Any) -> list[str]:
        run = RestoreRun.of(node, storage, backup, **spec)

        def meddle() -> None:
            if run.result.get("state", {}).get("stage") == "loaded":
                client["db"]["c"].create_index("b")
                client["db"]["extra"].insert_one({})
                client["other"]["stays"].insert_one({})

        run.on_record = meddle
        found: list[str] = (await run.work())["warnings"]
        return [text.removeprefix("the target differs from the backup: ") for text in found]

    try:
        index = "the index b_1 of db.c is not of the backup"
        extra, stays = (
            f"the collection {name} is not of the backup" for name in ("db.extra", "other.stays")
        )
        assert sorted(await told()) == [extra, stays, index]
        assert sorted(await told(ns=("db.*",))) == [extra, index], "the other was not named"
    finally:
        await node.aclose()


async def test_an_index_that_others_drop_while_a_restore_runs_fails_it(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_one({"_id": 1})
    client["db"]["c"].create_index("a")
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)

    async def set_expiry(_: Any) -> None:
        client["db"]["c"].drop_index("a_1")

    monkeypatch.setattr(work, "set_expiry", set_expiry)
    try:
        with pytest.raises(RestoreFailed, match=r"index a_1 of db\.c should be on the target"):
            await RestoreRun.of(node, storage, backup).work()
    finally:
        await node.aclose()


async def test_a_duplicate_under_a_unique_index_is_named(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n, "a": n, "b": n} for n in range(10)])
    client["db"]["c"].create_index("a", unique=True, name="one a each")
    client["db"]["c"].create_index("b", name="good")
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage)
    run = RestoreRun.of(node, storage, backup)

    def spoil() -> None:
        if run.result.get("state", {}).get("stage") == "loaded":
            client["db"]["c"].update_one({"_id": 1}, {"$set": {"a": 2}})

    run.on_record = spoil
    try:
        with pytest.raises(Exception, match=r"unique index one a each of db\.c.*'a': 2"):
            await run.work()
    finally:
        await node.aclose()
    assert set(client["db"]["c"].index_information()) == {"_id_", "good"}
