"""At which OpTime is read, when reading is lost, and how small collections share an object."""

from __future__ import annotations

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.codec import Compression
from agent.archive.manifest import CollectionEntry, Segment
from agent.archive.objects import fetch_framed
from agent.errors import NodeUnavailable
from agent.mongo.cursor import SnapshotLost
from agent.operations.backup import reading
from agent.operations.backup.reading import (
    SNAPSHOT_AGE_S,
    Bundle,
    ChunkWriter,
    ReadClock,
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
        patch.setattr(reading, "BATCH_BYTES", flush)
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
