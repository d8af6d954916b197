"""The archiver on a real oplog: what the majority committed, nothing else, and no hole unseen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson import Timestamp
from pymongo import MongoClient

from agent.archive.codec import Compression
from agent.archive.objects import fetch_framed
from agent.errors import NodeUnavailable, OplogForked, OplogOverrun
from agent.mongo.node import Node
from agent.mongo.oplog import Position, oldest_entry
from agent.operations.archiver import OplogArchiver, Slice
from agent.storage.memory import MemoryStorage
from agent.wire.optime import OpTime
from tests.support.documents import RAW
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import open_node
from tests.support.workload.runner import mark

Client = MongoClient[dict[str, Any]]


class _Archive:
    """What an archiver remembered, and how the next one goes on."""

    def __init__(self, node: Node, start: OpTime) -> None:
        self.node = node
        self.start = start
        self.kept: list[Slice] = []
        self.storage = MemoryStorage

    async def open(self) -> _Archive:
        self.objects = await MemoryStorage.open()
        return self

    def archiver(self, node: Node | None = None) -> OplogArchiver:
        last = self.kept[-1].ref if self.kept else None

        async def keep(archived: Slice) -> None:
            self.kept.append(archived)

        return OplogArchiver(
            node or self.node,
            self.objects,
            compression=Compression(),
            epoch=len(self.kept) + 1,
            position=Position(last.end, last.end_term) if last else Position(self.start),
            previous_sha256=last.sha256 if last else None,
            on_slice=keep,
        )

    async def read(self) -> bytes:
        """All entries; the slices link."""
        plain: list[bytes] = []
        end, previous = self.start, None
        for archived in self.kept:
            ref = archived.ref
            assert (ref.start, ref.previous_sha256) == (end, previous)
            _, frames = await fetch_framed(
                self.objects, ref.key, size_bytes=ref.size_bytes, sha256=ref.sha256
            )
            plain += frames
            end, previous = ref.end, ref.sha256
        return b"".join(plain)


def _oplog(client: Client, start: OpTime, end: OpTime) -> bytes:
    oplog: Any = client.local.get_collection("oplog.rs", codec_options=RAW)
    span = {"$gt": start.timestamp(), "$lte": end.timestamp()}
    return b"".join(entry.raw for entry in oplog.find({"ts": span}).sort("$natural", 1))


@pytest.fixture
async def node(one_node: ReplicaSet) -> AsyncIterator[Node]:
    """The only node of the set."""
    async with open_node(one_node) as opened:
        yield opened


async def test_slices_hold_exactly_the_oplog_between_their_ends(
    one_node: ReplicaSet, node: Node
) -> None:
    client = one_node.client()
    archive = await _Archive(node, OpTime.of(mark(client))).open()
    for turn in range(4):
        # A new archiver each time, as after a takeover.
        archiver = archive.archiver()
        for n in range(3):
            client["db"]["c"].insert_many([{"turn": turn, "n": n, "i": i} for i in range(50)])
            mark(client)
            await archiver.read()
        client["db"]["c"].update_many({"turn": turn}, {"$set": {"seen": True}})
        mark(client)
        await archiver.read()
        await archiver.close()
    assert len(archive.kept) == 4
    assert await archive.read() == _oplog(client, archive.start, archive.kept[-1].ref.end)
    assert sum(archived.ref.count for archived in archive.kept) > 4 * 4 * 50


async def test_reading_up_to_an_end_is_inclusive_to_the_increment(
    one_node: ReplicaSet, node: Node
) -> None:
    client = one_node.client()
    archive = await _Archive(node, OpTime.of(mark(client))).open()
    client["db"]["c"].insert_many([{"_id": n} for n in range(30)])
    mark(client)
    query = {"op": "i", "ns": "db.c", "ts": {"$gt": archive.start.timestamp()}}
    entries = list(client.local["oplog.rs"].find(query).sort("$natural", 1))
    end = OpTime.of(entries[17]["ts"])
    archiver = archive.archiver()
    await archiver.read(end)
    await archiver.close()
    assert archive.kept[-1].ref.end == end
    assert await archive.read() == _oplog(client, archive.start, end)


async def test_an_idle_replica_set_gives_no_slice(one_node: ReplicaSet, node: Node) -> None:
    start = OpTime.of(mark(one_node.client()))
    archive = await _Archive(node, start).open()
    archiver = archive.archiver()
    await archiver.read(start)
    await archiver.close()
    assert archive.kept == []
    assert archive.objects.objects.keys == []


async def test_a_position_before_the_first_entry_is_an_overrun(node: Node) -> None:
    before = OpTime.unpack((await oldest_entry(node)).pack() - 1)
    for position in (Position(before), Position(before, 1)):
        archive = await _Archive(node, before).open()
        archiver = archive.archiver()
        archiver.position = position
        with pytest.raises(OplogOverrun, match="begins at"):
            await archiver.read()


async def test_a_position_of_another_term_is_a_fork(one_node: ReplicaSet, node: Node) -> None:
    at = OpTime.of(mark(one_node.client()))
    archive = await _Archive(node, at).open()
    archiver = archive.archiver()
    archiver.position = Position(at, 4711)
    with pytest.raises(OplogForked, match="of term 4711 was rolled back"):
        await archiver.read()


async def test_a_position_between_two_entries_is_a_fork(one_node: ReplicaSet, node: Node) -> None:
    client = one_node.client()
    at = mark(client)
    mark(client)
    between = OpTime(T=at.time, I=at.inc + 1000)
    if OpTime.of(mark(client)) < between:
        client["db"]["c"].insert_many([{} for _ in range(1100)])
        mark(client)
    entries = {OpTime.of(e["ts"]) for e in client.local["oplog.rs"].find({}, {"ts": 1})}
    while between in entries:
        between = OpTime(T=between.T, I=between.I + 1)
    archiver = (await _Archive(node, between).open()).archiver()
    archiver.position = Position(between, 1)
    with pytest.raises((OplogForked, NodeUnavailable)):
        await archiver.read()


async def test_a_position_that_is_not_committed_yet_is_waited_for(node: Node) -> None:
    future = OpTime(T=(await node.hello()).majority.T + 1000, I=1)
    archiver = (await _Archive(node, future).open()).archiver()
    archiver.position = Position(future, 1)
    with pytest.raises(NodeUnavailable, match="has seen commits up to"):
        await archiver.read()


async def test_a_transaction_larger_than_an_entry_is_archived_as_its_chain(
    one_node: ReplicaSet, node: Node
) -> None:
    client = one_node.client()
    client["db"].create_collection("c")
    archive = await _Archive(node, OpTime.of(mark(client))).open()
    with client.start_session() as session, session.start_transaction():
        for n in range(5):
            client["db"]["c"].insert_one({"_id": n, "pad": "x" * (6 << 20)}, session=session)
    end = OpTime.of(mark(client))
    archiver = archive.archiver()
    await archiver.read(end)
    await archiver.close()
    assert await archive.read() == _oplog(client, archive.start, archive.kept[-1].ref.end)
    assert any("applyOps" in archived.ref.commands for archived in archive.kept)
    assert len(archive.kept) > 1, "30 MiB of entries are more than one slice"


async def test_another_node_goes_on_after_a_change_of_primary(three_nodes: ReplicaSet) -> None:
    client = three_nodes.client()
    primary = await asyncio.to_thread(three_nodes.primary)
    secondary = three_nodes.secondaries()[0]
    async with (
        open_node(three_nodes, primary) as first,
        open_node(three_nodes, secondary) as second,
    ):
        archive = await _Archive(first, OpTime.of(mark(client, of_all=3))).open()
        client["db"]["c"].insert_many([{"_id": n} for n in range(100)])
        archiver = archive.archiver()
        await archiver.read(OpTime.of(mark(client)))
        await archiver.close()
        await asyncio.to_thread(three_nodes.step_down)
        client["db"]["c"].insert_many([{"_id": n} for n in range(100, 200)])
        end = OpTime.of(mark(client))
        await second.wait_majority(end, timeout_s=20)
        archiver = archive.archiver(second)
        await archiver.read(end)
        await archiver.close()
    assert archive.kept[-1].ref.end_term > archive.kept[0].ref.end_term
    assert await archive.read() == _oplog(client, archive.start, end)


async def test_what_the_majority_has_not_is_not_archived(three_nodes: ReplicaSet) -> None:
    client = three_nodes.client()
    primary = await asyncio.to_thread(three_nodes.primary)
    client["db"]["c"].insert_one({"_id": 0})
    start = OpTime.of(mark(client, of_all=3))
    others = [one for one in three_nodes.data_nodes if one is not primary]
    async with open_node(three_nodes, primary) as node:
        archive = await _Archive(node, start).open()
        for one in others:
            three_nodes.pause(one)
        try:
            reply = client["db"].command(
                {"insert": "c", "documents": [{"_id": 1}], "writeConcern": {"w": 1}}
            )
            written: Timestamp = reply["operationTime"]
            archiver = archive.archiver()
            await archiver.read()
            assert archiver.position.optime < OpTime.of(written)
        finally:
            for one in others:
                three_nodes.resume(one)
        await node.wait_majority(OpTime.of(written), timeout_s=20)
        await archiver.read()
        await archiver.close()
    assert archiver.position.optime >= OpTime.of(written)
