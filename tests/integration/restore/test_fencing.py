"""What a worker sends after its successor has begun changes nothing."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import bson
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from agent.errors import LeaseLost
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.fencing import FENCE, is_restores_write, put_up, writes_under_way
from agent.mongo.apply.operations import apply_writes
from agent.mongo.apply.structure import drop
from agent.mongo.clients import APP_NAME
from agent.mongo.node import Document, Node
from agent.operations.restore import keeping, replaying
from agent.replay.scope import derived_uuid
from agent.storage.memory import MemoryStorage
from tests.support.compare import assert_same, fingerprint
from tests.support.eventually import eventually, eventually_async
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup

NAMESPACE_NOT_FOUND = 26


class Stopped:
    """A worker's connection, on which the first array that does this to `shop.small` is not sent
    when it should be."""

    def __init__(self, node: Node, wanted: str) -> None:
        self._command = node.command
        self._wanted = wanted
        self.kept: list[Document] = []
        node.command = self._hold  # type: ignore[method-assign]  # of this one object

    async def _hold(self, database: str, command: Document, **options: Any) -> Any:
        operations = [one for one in command.get("applyOps", ()) if isinstance(one, RawDocument)]
        found = [(one["op"], one["ns"]) for one in (bson.decode(o.raw) for o in operations)]
        if not self.kept and (self._wanted, "shop.small") in found:
            self.kept.append(command)
            await asyncio.Event().wait()
        return await self._command(database, command, **options)


@pytest.mark.parametrize("wanted", ["i", "u"], ids=["mending", "replay"])
async def test_an_array_that_is_sent_late_is_refused(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setattr(keeping, "KEEP_FROM", 1)
    monkeypatch.setattr(replaying, "BATCH_OPERATIONS", 4)
    client = one_node.client()
    small = client["shop"]["small"]
    small.insert_many([{"_id": "doomed"}, *({"_id": number, "n": 0} for number in range(20))])
    first, second = await open_node(one_node), await open_node(one_node)
    storage = await MemoryStorage.open()

    async def write_on() -> None:
        for _ in range(2):
            small.update_many({"n": {"$exists": True}}, {"$inc": {"n": 1}})
        small.delete_one({"_id": "doomed"})

    backup = await take_backup(first, storage, before_end=write_on)
    expected = fingerprint(client)
    small.delete_many({})
    run = RestoreRun.of(first, storage, backup)
    stopped = Stopped(first, wanted)
    refused: list[Any] = []

    def send() -> None:
        if f"{FENCE}{run.epoch}".partition(".")[2] not in client["admin"].list_collection_names():
            return
        with pytest.raises(OperationFailure) as caught:
            client["admin"].command(stopped.kept[0])
        refused.append(caught.value.code)

    worker = asyncio.create_task(run.work(first))
    await eventually_async(lambda: _is_kept(stopped), within_s=30.0)
    worker.cancel()
    with suppress(asyncio.CancelledError):
        await worker
    run.on_record = send
    await run.work(second)
    assert refused
    assert set(refused) == {NAMESPACE_NOT_FOUND}
    assert_same(expected, fingerprint(client))
    unfenced = {**stopped.kept[0], "applyOps": stopped.kept[0]["applyOps"][1:]}
    client["admin"].command(unfenced)
    assert expected != fingerprint(client), "what was sent late would have done no harm"
    await first.aclose()
    await second.aclose()


async def _is_kept(stopped: Stopped) -> bool:
    return bool(stopped.kept)


async def fenced(node: Node, epoch: int, told: list[list[str]] | None = None) -> RawDocument:
    waited = [] if told is None else told
    uuid = derived_uuid(str(epoch))
    return await put_up(node, epoch, uuid, check=lambda: None, told=waited.append)


async def test_the_latest_fence_alone_stands(one_node: ReplicaSet) -> None:
    node, client = await open_node(one_node), one_node.client()
    client["shop"]["c"].insert_one({"_id": 0})
    insert = [RawDocument(bson.encode({"op": "i", "ns": "shop.c", "o": {"_id": 1}}))]
    old, _, again = [await fenced(node, epoch) for epoch in (7, 8, 8)]
    for is_lenient in (False, True):
        with pytest.raises(LeaseLost):
            await apply_writes(node, insert, is_lenient=is_lenient, fence=old)
    assert client["shop"]["c"].count_documents({}) == 1
    await apply_writes(node, insert, is_lenient=False, fence=again)
    assert client["shop"]["c"].count_documents({}) == 2
    # Whoever wakes up while it puts up its own takes down no later one.
    await fenced(node, 7)
    await apply_writes(node, insert, is_lenient=False, fence=again)
    await node.aclose()


async def test_what_the_server_has_received_is_waited_for(one_node: ReplicaSet) -> None:
    node, client = await open_node(one_node), one_node.client()
    client["shop"]["c"].insert_one({"_id": 0})
    agent: MongoClient[Document] = MongoClient(one_node.uri(), appname=APP_NAME)
    point = {"configureFailPoint": "hangDuringBatchInsert", "data": {"nss": "shop.c"}}
    client["admin"].command({**point, "mode": "alwaysOn"})
    thread = threading.Thread(target=lambda: agent["shop"]["c"].insert_one({"_id": 1}))
    told: list[list[str]] = []
    try:
        thread.start()
        await asyncio.to_thread(eventually, lambda: _running(client), 10.0)
        assert await writes_under_way(node) == ["shop.c"]
        successor = asyncio.create_task(fenced(node, 1, told))
        done, _ = await asyncio.wait([successor], timeout=0.5)
        assert not done
    finally:
        client["admin"].command({**point, "mode": "off"})
        thread.join()
    async with asyncio.timeout(10):
        await successor
    assert await writes_under_way(node) == []
    assert told == [["shop.c"]]
    agent.close()
    await node.aclose()


def _running(client: MongoClient[Document]) -> bool:
    chosen: list[Document] = [{"$currentOp": {}}, {"$match": {"command.insert": "c"}}]
    return bool(list(client["admin"].aggregate(chosen)))


@pytest.mark.parametrize(
    ("namespace", "command", "expected"),
    [
        ("shop.c", {"insert": "c", "lsid": {}}, True),
        ("shop", {"dropDatabase": 1}, True),
        ("config.chunks", {"update": "chunks"}, True),
        ("admin.$cmd", {"_mergeAuthzCollections": 1}, True),
        ("admin.$cmd", {"$truncated": '{ applyOps: [ { op: "i", ns: "shop.c" }, ...'}, True),
        ("admin.$cmd", {"$truncated": "{ hello: 1, topologyVersion: ..."}, False),
        ("shop.c", {"find": "c"}, False),
        ("shop.c", {"createIndexes": "c"}, False),
        ("admin.tidelogCommands", {"insert": "tidelogCommands"}, False),
    ],
)
def test_restores_writes_are_told_from_others(
    namespace: str, command: Document, expected: bool
) -> None:
    assert is_restores_write(namespace, command) is expected


@pytest.mark.parametrize("options", [{}, {"timeseries": {"timeField": "t"}}], ids=["plain", "time"])
async def test_a_drop_that_is_sent_late_spares_a_newer_collection(
    one_node: ReplicaSet, options: dict[str, Any]
) -> None:
    shop = one_node.client()["shop"]
    name = "system.buckets.c" if options else "c"

    def made() -> bytes:
        shop.create_collection("c", **options)
        (row,) = shop.list_collections(filter={"name": name})
        return bytes(row["info"]["uuid"])

    before = made()
    node = await open_node(one_node)
    try:
        await drop(node, f"shop.{name}", before)
        assert "c" not in shop.list_collection_names()
        await drop(node, f"shop.{name}", before)
        after = made()
        await drop(node, f"shop.{name}", before)
        assert "c" in shop.list_collection_names()
        await drop(node, f"shop.{name}", after)
        assert "c" not in shop.list_collection_names()
    finally:
        await node.aclose()
