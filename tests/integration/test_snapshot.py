"""A snapshot holds what the collections held at the OpTime that each segment names."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from agent.archive.codec import Compression
from agent.errors import StoreUnavailable, leaves
from agent.mongo.cursor import SnapshotLost
from agent.mongo.node import Node
from agent.operations.backup import moments, snapshot
from agent.operations.backup.snapshot import SnapshotOutcome
from agent.operations.backup.streaming import Stream
from agent.storage.filesystem import FilesystemStorage
from agent.storage.memory import MemoryStorage
from agent.tasks import TaskGroup
from agent.wire.namespaces import Selection
from agent.wire.operations import Progress
from agent.wire.optime import OpTime
from tests.support.documents import read_raw
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import (
    Part,
    contents,
    make_snapshot,
    open_node,
    oplog_of,
    parts_of,
    small_units,
    take,
)
from tests.support.workload.runner import mark

Client = MongoClient[dict[str, Any]]


DATA = Selection(users_and_roles=False)


async def _taken(replset: ReplicaSet, **options: Any) -> tuple[SnapshotOutcome, MemoryStorage]:
    storage = await MemoryStorage.open()
    async with open_node(replset) as node:
        return await take(node, storage, **{"selection": DATA, **options}), storage


@contextmanager
def _beside(act: Any) -> Iterator[None]:
    """`act()` again and again in a thread of its own, once at least before the body begins."""
    ended, begun = threading.Event(), threading.Event()
    lost: list[BaseException] = []

    def run() -> None:
        try:
            while not ended.is_set():
                act()
                begun.set()
        except BaseException as error:
            lost.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        begun.wait(timeout=60)
        yield
    finally:
        ended.set()
        thread.join()
    if lost:
        raise lost[0]


def _low(bounds: tuple[Any, Any]) -> int:
    return -1 if bounds[0] is None else int(bounds[0])


async def test_every_segment_is_the_state_at_its_optime_while_documents_are_written(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    collection = client["db"]["c"]
    collection.insert_many([{"_id": n, "v": 0, "pad": "x" * 150} for n in range(0, 6000, 2)])
    small_units(monkeypatch, 32 << 10)
    monkeypatch.setattr(moments, "SNAPSHOT_AGE_S", 0.05)
    rng = random.Random(3)

    def write() -> None:
        n = rng.randrange(6000)
        collection.update_one({"_id": n}, {"$inc": {"v": 1}, "$set": {"pad": "y" * n}}, upsert=True)
        collection.delete_one({"_id": rng.randrange(6000)})

    with _beside(write):
        outcome, storage = await _taken(one_node)
    entry = next(e for e in outcome.begun.catalogue if e.ns == "db.c")
    parts = (await parts_of(storage, outcome.objects))[entry.uuid]
    read_ats = {part.segment.read_at for part in parts}
    assert len(read_ats) > 1, "reading was too quick to prove anything"
    states = {
        at: list(map(bytes, read_raw(client, "db", "c", at=at.timestamp()))) for at in read_ats
    }
    units = sorted((part.bounds for part in parts), key=_low)
    assert units[0][0] is None
    assert units[-1][1] is None
    assert [low for low, _ in units[1:]] == [high for _, high in units[:-1]]
    for part in parts:
        low, high = part.bounds
        expected = [
            raw
            for raw in states[part.segment.read_at]
            if (low is None or RawBSONDocument(raw)["_id"] >= low)
            and (high is None or RawBSONDocument(raw)["_id"] < high)
        ]
        assert sorted(part.raw) == sorted(expected)
    assert outcome.begun.first_write <= outcome.begun.catalogue_at <= min(read_ats)
    assert max(read_ats) <= outcome.read_end
    ends = [OpTime.of(one["ts"]) for one in await oplog_of(storage, outcome)]
    assert ends[-1] == outcome.slices[-1].end
    assert ends[-1] >= max(read_ats) or not ends


async def test_the_catalogue_has_what_belongs_into_a_backup_verbatim(one_node: ReplicaSet) -> None:
    client = one_node.client()
    db = client["db"]
    validator = {"name": {"$regex": "^a", "$options": "i"}, "n": {"$type": ["int", "long"]}}
    db.create_collection("guarded", validator=validator, collation={"locale": "sv"})
    db["guarded"].create_index(
        [("a", 1), ("b", -1)], name="ab", partialFilterExpression={"a": {"$gt": 1}}, sparse=False
    )
    db.create_collection("seen", viewOn="guarded", pipeline=[{"$match": {}}])
    db.create_collection("weather", timeseries={"timeField": "t"}, expireAfterSeconds=3600)
    client.admin["tidelogOperations"].insert_one({})
    db.command({"profile": 2})
    db["guarded"].find_one()
    db.command({"profile": 0})
    db.command({"createUser": "u", "pwd": "p", "roles": []})
    outcome, storage = await _taken(one_node, selection=Selection())
    entries = {entry.ns: entry for entry in outcome.begun.catalogue}
    # The server keeps an emptied collection of roles, once any test has made a role.
    assert set(entries) - {"admin.system.roles"} == {
        "admin.system.users",
        "db.guarded",
        "db.system.buckets.weather",
        "db.system.views",
    }
    listed = next(db.list_collections(filter={"name": "guarded"}))
    options = entries["db.guarded"].bson_options()
    assert bson.encode(options["validator"]) == bson.encode(listed["options"]["validator"])
    assert bson.encode(options) == bson.encode(listed["options"])
    indexes = {spec["name"]: spec for spec in entries["db.guarded"].bson_indexes()}
    for spec in db.command({"listIndexes": "guarded"})["cursor"]["firstBatch"]:
        assert indexes[spec["name"]] == spec
    held = await contents(storage, outcome)
    assert [bson.decode(raw)["_id"] for raw in held["db.system.views"]] == ["db.seen", "db.weather"]
    assert len(held["admin.system.users"]) == 1


async def _whole(replset: ReplicaSet) -> tuple[list[bytes], list[Part]]:
    """The documents in the order of their insertion, against that of their `_id`, and the parts."""
    collection = replset.client()["db"]["c"]
    collection.insert_many([{"_id": n, "pad": "x" * 150} for n in range(3000, 0, -1)])
    outcome, storage = await _taken(replset, readers=1)  # or a machine of many cores prefers ranges
    (entry,) = (e for e in outcome.begun.catalogue if e.ns == "db.c")
    parts = (await parts_of(storage, outcome.objects))[entry.uuid]
    return [bytes(raw) for raw in read_raw(replset.client(), "db", "c")], parts


async def test_what_is_read_whole_comes_in_natural_order_at_one_optime_in_many_objects(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_units(monkeypatch, whole_bytes=1 << 30)
    _, parts = await _whole(one_node)
    assert [n for part in parts for n in part.ids] == list(range(3000, 0, -1))
    assert {part.bounds for part in parts} == {(None, None)}
    assert len({part.segment.read_at for part in parts}) == 1
    assert len(parts) > 5


async def test_what_cannot_be_read_whole_is_read_in_ranges(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history of the OpTime ends in the middle, after some objects have been stored."""
    small_units(monkeypatch, whole_bytes=1 << 30)
    original = Stream._send

    async def lose(stream: Stream, group: TaskGroup) -> None:
        await original(stream, group)
        if len(stream._stored) == 3:
            raise SnapshotLost("Read timestamp is older than the oldest", code=239)

    monkeypatch.setattr(Stream, "_send", lose)
    expected, parts = await _whole(one_node)
    assert sorted(raw for part in parts for raw in part.raw) == sorted(expected)
    assert len({part.bounds for part in parts}) == len(parts) > 5


async def test_only_what_was_selected_is_read(one_node: ReplicaSet) -> None:
    client = one_node.client()
    for ns in ("a.x", "a.y", "b.x"):
        database, name = ns.split(".")
        client[database][name].insert_one({"_id": ns})
    chosen = Selection(include=("a.*",), exclude=("a.y",), users_and_roles=False)
    outcome, storage = await _taken(one_node, selection=chosen)
    assert list(await contents(storage, outcome)) == ["a.x"]


async def test_an_empty_replica_set_is_a_snapshot_too(one_node: ReplicaSet) -> None:
    outcome, storage = await _taken(one_node)
    assert outcome.begun.catalogue == ()
    assert outcome.objects == ()
    await oplog_of(storage, outcome)


async def test_an_empty_database_keeps_its_collections(one_node: ReplicaSet) -> None:
    one_node.client()["hollow"].create_collection("empty")
    outcome, storage = await _taken(one_node)
    assert [entry.ns for entry in outcome.begun.catalogue] == ["hollow.empty"]
    (item,) = outcome.objects
    assert item.documents == 0
    assert await contents(storage, outcome) == {"hollow.empty": []}


@pytest.mark.parametrize("kind", ["zstd", "none"])
async def test_documents_of_16_mib_are_read_to_the_byte(one_node: ReplicaSet, kind: Any) -> None:
    client = one_node.client()
    for number in range(3):
        document = {"_id": number, "pad": b""}
        document["pad"] = random.Random(number).randbytes((16 << 20) - len(bson.encode(document)))
        assert len(bson.encode(document)) == 16 << 20
        client["db"]["huge"].insert_one(document)
    client["db"]["huge"].insert_one({"_id": 9})
    outcome, storage = await _taken(one_node, compression=Compression(kind))
    expected = sorted(map(bytes, read_raw(client, "db", "huge")))
    assert sorted((await contents(storage, outcome))["db.huge"]) == expected


async def test_a_prepared_transaction_that_is_open_at_the_start_is_covered(
    one_node: ReplicaSet,
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_one({"_id": "before"})
    client["db"]["txn"].insert_one({"_id": "before"})
    with client.start_session(causal_consistency=False) as session:
        session.start_transaction()
        client["db"]["txn"].insert_one({"_id": "prepared"}, session=session)
        at = client.admin.command(
            {"prepareTransaction": 1, "writeConcern": {"w": "majority"}}, session=session
        )["prepareTimestamp"]
        for n in range(20):
            client["db"]["c"].insert_one({"_id": n})

        def commit() -> None:
            # Reading the collection waits for the decision.
            time.sleep(0.5)
            command = {"commitTransaction": 1, "commitTimestamp": at}
            client.admin.command(command, session=session)

        committing = asyncio.create_task(asyncio.to_thread(commit))
        outcome, storage = await _taken(one_node)
        await committing
        session.abort_transaction()
    assert outcome.begun.first_write < OpTime.of(at)
    assert outcome.begun.catalogue_at > OpTime.of(at)
    entries = await oplog_of(storage, outcome)
    (prepare,) = (one for one in entries if OpTime.of(one["ts"]) == OpTime.of(at))
    assert prepare["o"]["prepare"] is True
    held = [bson.decode(raw)["_id"] for raw in (await contents(storage, outcome))["db.txn"]]
    committed = [one for one in entries if one["op"] == "c" and "commitTransaction" in one["o"]]
    assert "prepared" in held or committed, "the transaction is in neither data nor oplog"


async def test_a_capped_collection_is_read_in_natural_order_while_it_grows(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"].create_collection("ring", capped=True, size=16 << 20)
    ring = client["db"]["ring"]
    ring.insert_many([{"_id": n, "pad": "x" * 200} for n in range(3000)])
    small_units(monkeypatch)
    count = 3000

    def grow() -> None:
        nonlocal count
        ring.insert_many([{"_id": n, "pad": "x" * 200} for n in range(count, count + 10)])
        count += 10

    with _beside(grow):
        outcome, storage = await _taken(one_node)
    (entry,) = outcome.begun.catalogue
    parts = (await parts_of(storage, outcome.objects))[entry.uuid]
    assert all(part.segment.is_fuzzy for part in parts)
    assert len(parts) > 1
    ids = [one for part in parts for one in part.ids]
    assert ids == list(range(len(ids)))
    assert len(ids) >= 3000
    inserted = {one["o"]["_id"] for one in await oplog_of(storage, outcome) if one["op"] == "i"}
    earlier = set(ids) - inserted
    assert earlier == set(range(len(earlier))), "a document is in neither the data nor the span"
    assert max(ids) <= max(inserted), "a document that is not in the span was read"


async def test_a_capped_collection_that_overwrites_itself_is_read_again(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"].create_collection("ring", capped=True, size=256 << 10)
    ring = client["db"]["ring"]
    ring.insert_many([{"_id": n, "pad": "x" * 900} for n in range(250)])
    small_units(monkeypatch)
    storage = await MemoryStorage.open()
    async with open_node(one_node) as node:
        original, overwritten = node.command, 0

        async def command(database: str, sent: dict[str, Any], **options: Any) -> Any:
            nonlocal overwritten
            if sent.get("collection") == "ring" and overwritten < 2:
                overwritten += 1
                made = [{"_id": 1000 * overwritten + n, "pad": "x" * 900} for n in range(600)]
                await asyncio.to_thread(ring.insert_many, made)
            return await original(database, sent, **options)

        monkeypatch.setattr(node, "command", command)
        outcome = await take(node, storage, selection=DATA)
    assert overwritten == 2
    assert outcome.tally.rereads == 2
    ids = [bson.decode(raw)["_id"] for raw in (await contents(storage, outcome))["db.ring"]]
    assert ids == sorted(ids)
    assert ids[-1] == 2599
    assert len(ids) > 100


@pytest.mark.timeout(180)
async def test_a_thousand_tiny_collections_are_few_objects_and_quick(
    one_node: ReplicaSet,
) -> None:
    client = one_node.client()
    many = client["many"]
    for n in range(1000):
        command = {"insert": f"c{n}", "documents": [{"_id": n}], "writeConcern": {"w": 1}}
        many.command(command)
    mark(client)
    storage = await MemoryStorage.open()
    async with open_node(one_node) as node:
        started = time.monotonic()
        outcome = await take(node, storage, selection=DATA)
        took_s = time.monotonic() - started
    held = await contents(storage, outcome)
    assert {ns: [bson.decode(raw)["_id"] for raw in own] for ns, own in held.items()} == {
        f"many.c{n}": [n] for n in range(1000)
    }
    assert len(outcome.objects) <= 4
    assert len(storage.objects.keys) < 40
    assert took_s < 20


async def test_progress_is_told_and_a_deaf_control_database_stops_nothing(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_node.client()["db"]["c"].insert_many([{"_id": n} for n in range(100)])
    monkeypatch.setattr(snapshot, "REPORT_EVERY_S", 0.001)
    told: list[Progress] = []

    def tell(progress: Progress) -> None:
        told.append(progress)
        raise StoreUnavailable("no primary")

    async with open_node(one_node) as node:
        await take(node, await MemoryStorage.open(), on_progress=tell)
    assert told[-1].stage == "archiving"
    assert told[-1].documents_done == 100


async def test_a_worker_that_must_not_write_any_more_writes_nothing_more(
    one_node: ReplicaSet,
) -> None:
    one_node.client()["db"]["c"].insert_one({"_id": 1})
    storage = await MemoryStorage.open()

    class LostError(Exception):
        pass

    def check() -> None:
        if any("/journal/" in key for key in storage.objects.keys):
            raise LostError

    async def never(read_end: OpTime) -> OpTime:
        raise AssertionError

    async with open_node(one_node) as node:
        taking = make_snapshot(node, storage)
        taking._check = check
        with pytest.raises(BaseExceptionGroup) as caught:
            await taking.take(never)
    # On a busy machine the archiver is at its next check when a reader is at his: then both say it.
    assert {type(leaf) for leaf in leaves(caught.value)} == {LostError}
    assert [key for key in storage.objects.keys if key.startswith(("chunks/", "slices/"))] == []


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the program zstd is not installed")
@pytest.mark.parametrize("kind", ["zstd", "none"])
async def test_the_program_zstd_reads_a_chunk_and_a_slice(
    one_node: ReplicaSet, tmp_path: Path, kind: Any
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n, "text": "x" * n} for n in range(2000)])
    storage = await FilesystemStorage.open(tmp_path)

    async def later(read_end: OpTime) -> OpTime:
        client["db"]["c"].insert_one({"_id": -1})
        return OpTime.of(mark(client))

    async with open_node(one_node) as node:
        taking = make_snapshot(node, storage, selection=DATA, compression=Compression(kind))
        outcome = await taking.take(later)
    (item,) = outcome.objects
    expected = list(client["db"]["c"].find({"_id": {"$gte": 0}}))
    assert bson.decode_all(_zstd(tmp_path / item.key)) == expected
    slices = b"".join([_zstd(tmp_path / ref.key) for ref in outcome.slices])
    entries = bson.decode_all(slices)
    assert [one["o"]["_id"] for one in entries if one["op"] == "i"] == [-1]
    await storage.aclose()


def _zstd(path: Path) -> bytes:
    done = subprocess.run(
        ["zstd", "-d", "--stdout", "-"], input=path.read_bytes(), capture_output=True, check=True
    )
    return done.stdout


async def test_a_node_that_lags_is_read_at_what_it_has(three_nodes: ReplicaSet) -> None:
    client = three_nodes.client()
    client["db"]["c"].insert_many([{"_id": n} for n in range(500)])
    mark(client, of_all=3)
    secondary = three_nodes.secondaries()[0]
    storage = await MemoryStorage.open()
    async with open_node(three_nodes, secondary) as node:
        assert isinstance(node, Node)
        outcome = await take(node, storage, selection=DATA)
    assert len((await contents(storage, outcome))["db.c"]) == 500
