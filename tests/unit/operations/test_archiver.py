"""Slices link to each other, and say what is in them."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import bson
import pytest
from bson import Binary
from bson.raw_bson import RawBSONDocument

from agent.archive.codec import Compression, open_object
from agent.archive.layout import slice_span_of
from agent.errors import StorageUnavailable
from agent.mongo.oplog import OplogBatch, Position
from agent.operations import archiver as archiving
from agent.operations.archiver import (
    OplogArchiver,
    Slice,
    describe_command,
    matters,
    reshaping,
)
from agent.storage.memory import MemoryStorage
from tests.support.faulty_storage import FaultyStorage
from tests.unit.mongo.scripted_node import ScriptedNode, at, batch, entry

UI = Binary(b"u" * 16, 4)
LARGE = 2 << 20


def _archiver(
    node: ScriptedNode, storage: Any, kept: list[Slice], position: Position | None = None
) -> OplogArchiver:
    async def keep(archived: Slice) -> None:
        kept.append(archived)

    last = kept[-1].ref if kept else None
    return OplogArchiver(
        node,
        storage,
        compression=Compression(),
        epoch=3,
        position=position or Position(at(10), 1),
        previous_sha256=last.sha256 if last else None,
        on_slice=keep,
    )


def _node(*batches: list[dict[str, Any]]) -> ScriptedNode:
    return ScriptedNode([batch(*documents) for documents in batches], majority=at(1000))


async def test_slices_link_and_hold_what_is_between_their_ends() -> None:
    storage = await MemoryStorage.open()
    kept: list[Slice] = []
    node = _node(
        [entry(10), entry(11), entry(12)],
        [entry(12), entry(13)],
        [entry(13), entry(14, term=2)],
    )
    archiver = _archiver(node, storage, kept)
    await archiver.read()
    await archiver.read()
    await archiver.close()
    await archiver.read()
    await archiver.close()
    first, second = (archived.ref for archived in kept)
    assert (first.start, first.end, first.count) == (at(10), at(13), 3)
    assert (second.start, second.end, second.count) == (at(13), at(14), 1)
    assert (first.previous_sha256, second.previous_sha256) == (None, first.sha256)
    assert (first.start_term, first.end_term) == (1, 1)
    assert (second.start_term, second.end_term) == (1, 2)
    for ref in (first, second):
        header, plain = open_object(storage.objects.bodies[ref.key], ref.key)
        seconds = [found["ts"].time for found in bson.decode_all(b"".join(plain))]
        assert seconds == list(range(ref.start.T + 1, ref.end.T + 1))
        assert slice_span_of(ref.key) == (ref.start, ref.end)
        assert header["previous_sha256"] == ref.previous_sha256
        assert header["start"] == ref.start.to_json()
        assert (header["count"], header["end_term"]) == (ref.count, ref.end_term)


async def test_an_idle_oplog_gives_no_slice() -> None:
    storage = await MemoryStorage.open()
    kept: list[Slice] = []
    archiver = _archiver(_node([entry(10)], [entry(10)]), storage, kept)
    await archiver.read()
    await archiver.close()
    await archiver.read()
    await archiver.close()
    assert kept == []
    assert storage.objects.keys == []


async def test_a_slice_is_closed_when_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "SLICE_BYTES", 100)
    kept: list[Slice] = []
    node = _node([entry(10), *(entry(n) for n in range(11, 16))], [entry(15), entry(16)])
    archiver = _archiver(node, await MemoryStorage.open(), kept)
    await archiver.read()
    assert [archived.ref.end for archived in kept] == [at(15)]
    await archiver.read()
    await archiver.close()
    assert [archived.ref.end for archived in kept] == [at(15), at(16)]


@pytest.mark.parametrize("is_stored", [False, True])
async def test_whoever_goes_on_after_a_failed_slice_links_to_the_last_remembered_one(
    is_stored: bool,
) -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    kept: list[Slice] = []
    archiver = _archiver(_node([entry(10), entry(11)]), faulty, kept)
    await archiver.read()
    await archiver.close()
    arm = faulty.fail_after if is_stored else faulty.fail
    arm("put", StorageUnavailable("broke"))
    archiver = _archiver(_node([entry(11), entry(12)]), faulty, kept, Position(at(11), 1))
    await archiver.read()
    with pytest.raises(StorageUnavailable):
        await archiver.close()
    assert len(kept) == 1
    node = _node([entry(11), entry(12), entry(13)])
    archiver = _archiver(node, faulty, kept, Position(at(11), 1))
    await archiver.read()
    await archiver.close()
    assert [(a.ref.start, a.ref.end) for a in kept] == [(at(10), at(11)), (at(11), at(13))]
    assert kept[1].ref.previous_sha256 == kept[0].ref.sha256


async def test_a_slice_names_the_commands_and_the_drops_in_it() -> None:
    kept: list[Slice] = []
    target = Binary(b"t" * 16, 4)
    node = _node(
        [
            entry(10),
            entry(11, op="c", ns="d.$cmd", ui=UI, o={"drop": "c"}),
            entry(12, op="c", ns="d.$cmd", ui=UI, o={"create": "c"}),
            entry(13, op="c", ns="d.$cmd", o={"renameCollection": "d.a", "dropTarget": target}),
        ]
    )
    archiver = _archiver(node, await MemoryStorage.open(), kept)
    await archiver.read()
    await archiver.close()
    assert kept[0].ref.commands == ("create", "drop", "renameCollection")
    assert kept[0].dropped == {bytes(UI).hex(), bytes(target).hex()}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"o": {"drop": "c"}, "ui": UI}, ("drop", {bytes(UI).hex()})),
        ({"o": {"renameCollection": "d.a", "to": "d.b"}, "ui": UI}, ("renameCollection", set())),
        ({"o": {"renameCollection": "d.a", "dropTarget": False}}, ("renameCollection", set())),
        ({"o": {"dropDatabase": 1}}, ("dropDatabase", set())),
        ({"o": {"applyOps": []}}, ("applyOps", set())),
    ],
)
def test_what_a_command_drops(fields: dict[str, Any], expected: tuple[str, set[str]]) -> None:
    assert describe_command(RawBSONDocument(bson.encode(entry(1, op="c", **fields)))) == expected


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([entry(1), entry(2)], False),
        ([entry(1, op="u", ns="admin.tidelogAgents")], False),
        ([entry(1, op="i", ns="config.system.sessions")], False),
        ([entry(1, op="u", ns="config.lockpings"), entry(2, op="i", ns="config.actionlog")], False),
        ([entry(1, op="u", ns="config.chunks")], True),
        ([entry(1), entry(2, op="i", ns="shop.orders")], True),
        ([entry(1, op="c", ns="shop.$cmd")], True),
        ([entry(n) for n in range(500)], True),
    ],
)
def test_what_is_written_on_an_idle_set_does_not_matter(
    entries: list[dict[str, Any]], expected: bool
) -> None:
    data = b"".join(map(bson.encode, entries))
    assert matters(OplogBatch(data, len(entries), Position(at(1)), ())) is expected


_ADDED = {"op": "i", "ns": "config.shards", "o": {"_id": "s2"}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (_ADDED, {"addShard"}),
        ({"op": "c", "ns": "admin.$cmd", "o": {"applyOps": [_ADDED]}}, {"addShard"}),
        ({**_ADDED, "op": "u"}, set()),
        ({"op": "i", "ns": "shop.orders", "o": {"ns": "config.shards"}}, set()),
        ({"op": "u", "ns": "config.reshardingOperations"}, {"reshardCollection"}),
        ({"op": "i", "ns": "config.chunks"}, set()),
    ],
)
def test_resharding_and_new_shards_are_seen_in_the_oplog_of_config_servers(
    fields: dict[str, Any], expected: set[str]
) -> None:
    data = bson.encode(entry(1)) + bson.encode(entry(2, **fields))
    assert reshaping(OplogBatch(data, 2, Position(at(2)), ())) == expected


class _Large(ScriptedNode):
    """Each batch is one entry that is too large to make all of them beforehand."""

    async def command(self, database: str, command: dict[str, Any], **options: Any) -> Any:
        made = [entry(10)] if "find" in command else []
        made.append(entry(11 + len(self.asked), o={"pad": random.randbytes(LARGE)}))
        reply = batch(*made, cursor_id=7 if len(self.asked) < 3 else 0, first="find" in command)
        self.asked.append(command)
        return RawBSONDocument(reply)


async def test_a_slice_of_large_documents_is_in_memory_once_while_it_is_stored() -> None:
    held: list[int] = []

    class Measuring(MemoryStorage):
        async def put(self, *arguments: Any, **options: Any) -> Any:
            held.append(tracemalloc.get_traced_memory()[0])
            return await super().put(*arguments, **options)

    storage = await Measuring.open()
    kept: list[Slice] = []
    archiver = _archiver(_Large([], majority=at(1000)), storage, kept)
    tracemalloc.start()
    try:
        await archiver.read()
        held.clear()
        await archiver.close()
    finally:
        tracemalloc.stop()
    assert kept[-1].ref.plain_bytes > 4 * LARGE
    assert held[-1] < 5 * LARGE, "what is to be stored, and nothing of what it was made from"
