"""At which OpTime is read, when reading is lost, and how small collections share an object."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymongo.errors import OperationFailure

from agent.archive.codec import Compression
from agent.archive.manifest import CollectionEntry, Segment
from agent.archive.objects import fetch_framed
from agent.errors import NodeUnavailable
from agent.mongo.cursor import SnapshotLost
from agent.operations.backup import bundling, reading
from agent.operations.backup.bundling import Bundle
from agent.operations.backup.moments import SNAPSHOT_AGE_S, Pace, ReadClock
from agent.operations.backup.reading import (
    WHOLE_BYTES,
    ChunkWriter,
    Reader,
    SmallCollection,
    Tally,
    Unit,
    is_fuzzy,
)
from agent.pipeline.budget import ByteBudget
from agent.storage.memory import MemoryStorage
from agent.wire.optime import OpTime
from tests.unit.mongo.scripted_node import ScriptedNode, at, batch
from tests.unit.storage.clocks import FakeClock

LOST = SnapshotLost("pending collection catalog changes", code=246)


def _node(seconds: int = 500, *replies: bytes) -> ScriptedNode:
    return ScriptedNode(list(replies), majority=at(seconds))


async def test_one_optime_is_read_at_for_as_long_as_its_history_is_sure() -> None:
    clock = FakeClock()
    read_clock = ReadClock(_node(), clock, at(100))
    assert await read_clock.now() == at(100)
    clock.now_s += SNAPSHOT_AGE_S
    assert await read_clock.now() == at(100)
    clock.now_s += 1
    assert await read_clock.now() == at(500)
    clock.now_s += SNAPSHOT_AGE_S
    assert await read_clock.now() == at(500)


async def test_the_optime_never_goes_back_on_a_node_that_lags() -> None:
    read_clock = ReadClock(_node(50), FakeClock(), at(100))
    assert await read_clock.renew() == at(100)


async def test_what_is_lost_once_is_read_again_at_once_and_then_with_growing_pauses() -> None:
    clock = FakeClock()
    read_clock = ReadClock(_node(), clock, at(100))
    assert await read_clock.recover(1, LOST) == at(500)
    assert clock.slept == []
    for losses in range(2, 11):
        await read_clock.recover(losses, LOST)
    assert clock.slept == sorted(clock.slept)
    assert 10 < sum(clock.slept) < 60, "a change that still has to be committed is waited for"


async def test_what_is_lost_again_and_again_is_given_up_on_with_the_reason() -> None:
    read_clock = ReadClock(_node(), FakeClock(), at(100))
    with pytest.raises(NodeUnavailable, match="11 times in a row: pending collection catalog"):
        await read_clock.recover(11, LOST)


def test_what_is_read_too_slowly_to_be_read_whole_is_given_up_on_early() -> None:
    clock = FakeClock()
    pace = Pace(clock, WHOLE_BYTES)
    pace.check(0)
    clock.now_s += 2
    pace.check(WHOLE_BYTES // 8)
    with pytest.raises(SnapshotLost, match="would take 18 s"):
        pace.check(WHOLE_BYTES // 10)
    clock.now_s += 100
    pace.check(WHOLE_BYTES * 9 // 10)


@pytest.mark.parametrize(
    ("ns", "options", "expected"),
    [
        ("db.c", {}, False),
        ("db.c", {"capped": True}, True),
        ("db.c", {"clusteredIndex": {}}, False),
        ("admin.system.users", {}, True),
        ("admin.system.roles", {}, True),
    ],
)
def test_what_the_server_reads_at_no_optime_is_fuzzy(
    ns: str, options: dict[str, object], expected: bool
) -> None:
    assert is_fuzzy(CollectionEntry(ns=ns, uuid="0" * 32, options=options)) is expected


async def _reader(node: ScriptedNode, tally: Tally | None = None) -> tuple[Reader, MemoryStorage]:
    storage = await MemoryStorage.open()
    writer = ChunkWriter(storage, "rs0", "op", 1, lambda: None)
    reader = Reader(
        node,
        writer,
        compression=Compression(),
        budget=ByteBudget(1 << 30),
        read_clock=ReadClock(node, FakeClock(), at(100)),
        tally=tally or Tally(),
    )
    return reader, storage


@settings(deadline=None)
@given(sizes=st.lists(st.integers(0, 6), max_size=12), flush=st.integers(1, 80))
async def test_a_bundle_says_where_each_collection_lies(sizes: list[int], flush: int) -> None:
    reader, storage = await _reader(_node())
    bundle = Bundle(reader)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "BATCH_BYTES", flush)
        expected: dict[str, bytes] = {}
        for number, size in enumerate(sizes):
            blocks = [bson.encode({"_id": n, "of": number}) for n in range(size)]
            plain = b"".join(blocks)
            expected[f"{number:032x}"] = plain
            segment = Segment(uuid=f"{number:032x}", length=len(plain), count=size, read_at=at(100))
            await bundle.add(SmallCollection(segment, blocks))
        stored = await bundle.store()
    assert (stored is None) == (not sizes)
    if stored is not None:
        _, frames = await fetch_framed(
            storage, stored.key, size_bytes=stored.size_bytes, sha256=stored.sha256
        )
        whole = b"".join(frames)
        found = {s.uuid: whole[s.offset : s.offset + s.length] for s in stored.segments}
        assert found == expected
        assert len(whole) == stored.plain_bytes
    assert await bundle.store() is None, "what was stored is not stored again"


async def test_no_two_objects_of_a_worker_share_a_key() -> None:
    reader, storage = await _reader(_node())
    segment = Segment(uuid="0" * 32, length=0, count=0, read_at=at(100))
    keys = [(await reader.store_bundle([segment], [])).key for _ in range(5)]
    assert keys == sorted(set(keys)) == storage.objects.keys


async def test_what_does_not_compress_is_cut_before_it_outgrows_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten batches of one range, whose stored size counts as well as their plain size."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4000)
    noise = [bytes((n * 7919 + i * i) % 251 for i in range(1500)) for n in range(10)]
    replies = [
        batch({"_id": n, "x": noise[n]}, cursor_id=0 if n == 9 else 7, first=n == 0)
        for n in range(10)
    ]
    tally = Tally()
    reader, _ = await _reader(_node(500, *replies), tally)
    reader._compression = Compression("none")
    entry = CollectionEntry(ns="db.c", uuid="0" * 32)
    objects = await reader.read_unit(Unit(entry))
    assert [item.documents for item in objects] == [3, 3, 3, 1]
    assert all(item.segments[0].read_at == at(100) for item in objects)
    assert tally.documents == 10
    assert isinstance(objects[0].segments[0].read_at, OpTime)


class _Losing(ScriptedNode):
    """Its history ends behind the replies given."""

    async def command(self, database: str, command: dict[str, Any], **options: Any) -> Any:
        if "getMore" in command and not self._replies:
            raise OperationFailure("Read timestamp is older than the oldest", code=239)
        if "killCursors" in command:
            return {"ok": 1.0}
        return await super().command(database, command, **options)


def _stream(last_cursor_id: int) -> list[bytes]:
    """Ten batches of a document of 1,500 bytes."""
    return [
        batch({"_id": n, "x": bytes(1500)}, cursor_id=last_cursor_id if n == 9 else 7, first=n == 0)
        for n in range(10)
    ]


WHOLE = Unit(CollectionEntry(ns="db.c", uuid="0" * 32), (0,), whole_bytes=15_000)


async def test_a_whole_collection_becomes_objects_of_one_optime_without_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4000)
    assert WHOLE.is_stream
    tally = Tally()
    reader, storage = await _reader(_node(500, *_stream(0)), tally)
    objects = await reader.read_unit(WHOLE)
    assert [item.documents for item in objects] == [3, 3, 3, 1]
    segments = [segment for item in objects for segment in item.segments]
    assert {(s.min, s.max, s.read_at) for s in segments} == {(None, None, at(100))}
    assert (tally.documents, tally.rereads) == (10, 0)
    assert storage.objects.keys == sorted(item.key for item in objects)


@pytest.mark.parametrize("whole_bytes", [15_000, 1], ids=["stream", "small"])
async def test_a_whole_collection_that_is_lost_counts_for_nothing_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, whole_bytes: int
) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", 4000)
    tally = Tally()
    node = _Losing(_stream(7), majority=at(500))
    reader, _ = await _reader(node, tally)
    with pytest.raises(SnapshotLost, match="older than the oldest"):
        await reader.read_unit(replace(WHOLE, whole_bytes=whole_bytes))
    assert (tally.bytes, tally.documents, tally.rereads) == (0, 0, 1)
    assert [command for command in node.asked if "find" in command] == node.asked[:1]
