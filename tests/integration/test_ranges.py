"""Ranges cover a collection: each document once, whatever its `_id` is and whatever it sorts by."""

from __future__ import annotations

import random
import struct
from contextlib import aclosing
from typing import Any

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from agent.mongo.catalogue import CatalogueRow, read_catalogue
from agent.mongo.cursor import Find, after, at_snapshot, bounds, raw_batches
from agent.mongo.node import Node
from agent.mongo.ranges import find_ranges
from agent.mongo.raw import documents
from agent.wire.optime import OpTime
from tests.support.documents import RAW, read_raw
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import open_node
from tests.support.workload.runner import mark

Client = MongoClient[dict[str, Any]]
FAR = bson.DatetimeMS(2**63 - 1)
LONG_AGO = bson.DatetimeMS(-(2**63))


async def _row(node: Node, ns: str, read_at: OpTime) -> CatalogueRow:
    return next(row for row in await read_catalogue(node, read_at) if row.ns == ns)


async def _read(node: Node, row: CatalogueRow, read_at: OpTime, options: Any) -> list[bytes]:
    find = Find("db", row.uuid, row.ns, at_snapshot(read_at), options, batch_size=7)
    async with raw_batches(node, find) as batches:
        data = [batch.documents async for batch in batches]
    return [part[start:end] for part in data for start, end in documents(part)]


async def _in_ranges(node: Node, ns: str, read_at: OpTime, skip: int) -> list[list[bytes]]:
    row = await _row(node, ns, read_at)
    is_clustered = "clusteredIndex" in row.options
    found = find_ranges(node, ns=ns, uuid=row.uuid, read_at=read_at, skip=skip)
    async with aclosing(found) as ranges:
        cut = [pair async for pair in ranges]
    assert cut[0][0] is None
    assert cut[-1][1] is None
    assert [low for low, _ in cut[1:]] == [high for _, high in cut[:-1]]
    return [
        await _read(node, row, read_at, bounds(low, high, is_clustered=is_clustered))
        for low, high in cut
    ]


async def _assert_covered(replset: ReplicaSet, name: str, *skips: int) -> None:
    client = replset.client()
    at = mark(client)
    expected = sorted(read_raw(client, "db", name))
    assert expected
    async with open_node(replset) as node:
        for skip in skips or (1, 2, 3, 7, len(expected) - 1, len(expected), 10_000):
            ranges = await _in_ranges(node, f"db.{name}", OpTime.of(at), max(1, skip))
            found = [raw for part in ranges for raw in part]
            assert len(found) == len(expected), f"skip {skip}"
            assert sorted(found) == expected
            # MaxKey is never a boundary, so the last range may have one more.
            assert max(map(len, ranges)) <= max(1, skip) + 1
            assert max(map(len, ranges[:-1]), default=0) <= max(1, skip)


def _old(kind: int, value: bytes) -> RawBSONDocument:
    """A document whose `_id` no driver writes any more."""
    content = bytes([kind]) + b"_id\0" + value + b"\0"
    return RawBSONDocument(struct.pack("<i", len(content) + 4) + content, RAW)


_OF_EVERY_TYPE: list[Any] = [
    *(MinKey(), MaxKey(), None, float("nan"), float("-inf"), float("inf"), -1.5, 0, Int64(2**62)),
    *(Decimal128("0.1"), Decimal128("1E+6000"), Decimal128("-7"), "", "a", "A", "ä", "a\0b", "z"),
    *({}, {"a": 1}, {"a": {"b": [1, MaxKey()]}}, {"a": MinKey()}, {"x.y": 1}),
    *(b"", b"bin", Binary(b"b", 128), Binary(bytes(16), 4), ObjectId(b"o" * 12), False, True),
    *(LONG_AGO, FAR, bson.DatetimeMS(0), Timestamp(1, 1), Timestamp(2**32 - 1, 7)),
    *(Code("f()"), Code("f()", {"x": 1})),
]
_OLD = [
    _old(0x0E, struct.pack("<i", 4) + b"sym\0"),
    _old(0x0C, struct.pack("<i", 4) + b"d.c\0" + bytes(range(12))),
]


def _insert(client: Client, name: str, made: list[Any]) -> None:
    reply = client["db"].command({"insert": name, "documents": made})
    assert "writeErrors" not in reply, reply["writeErrors"]


async def test_ranges_cover_ids_of_every_type_mixed(one_node: ReplicaSet) -> None:
    made = [{"_id": value, "n": n} for n, value in enumerate(_OF_EVERY_TYPE)]
    random.Random(1).shuffle(made)
    _insert(one_node.client(), "mixed", [*made, *_OLD])
    await _assert_covered(one_node, "mixed")


@pytest.mark.parametrize("last", [*_OF_EVERY_TYPE, *_OLD], ids=lambda value: type(value).__name__)
async def test_the_last_range_begins_at_any_value_exactly(one_node: ReplicaSet, last: Any) -> None:
    """The last boundary is the greatest `_id`: it must be neither lost nor read twice."""
    greatest = last if isinstance(last, RawBSONDocument) else {"_id": last}
    client = one_node.client()
    _insert(client, "c", [greatest, {"_id": MinKey()}] if last != MinKey() else [greatest])
    await _assert_covered(one_node, "c", 1)


async def test_ranges_follow_the_collation(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"].create_collection("swedish", collation={"locale": "sv", "strength": 2})
    words = ["ångström", "zebra", "Ära", "apa", "öl", "B", "c", "a1", "a10", "é", "ß", "𝔘", ""]
    made: list[dict[str, Any]] = [{"_id": word} for word in words]
    made += [{"_id": value} for value in (1, 2.5, MaxKey(), MinKey(), ObjectId(), {"s": "Ö"})]
    _insert(client, "swedish", made)
    await _assert_covered(one_node, "swedish")


async def test_ranges_cover_a_clustered_collection(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"].create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
    _insert(client, "clustered", [*({"_id": value} for value in _OF_EVERY_TYPE), *_OLD])
    await _assert_covered(one_node, "clustered")


async def test_ranges_cover_the_buckets_of_a_time_series(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"].create_collection("weather", timeseries={"timeField": "t", "metaField": "m"})
    made = [{"t": bson.DatetimeMS(n * 10_000_000).as_datetime(), "m": n % 9} for n in range(90)]
    client["db"]["weather"].insert_many(made)
    await _assert_covered(one_node, "system.buckets.weather")


async def test_ranges_are_those_of_the_snapshot_whatever_is_written_meanwhile(
    one_node: ReplicaSet,
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n} for n in range(100)])
    read_at = OpTime.of(mark(client))
    client["db"]["c"].delete_many({"_id": {"$lt": 60}})
    client["db"]["c"].insert_many([{"_id": n + 0.5} for n in range(100)])
    async with open_node(one_node) as node:
        ranges = await _in_ranges(node, "db.c", read_at, 9)
    ids = [bson.decode(raw)["_id"] for part in ranges for raw in part]
    assert sorted(ids) == list(range(100))
    assert len(ranges) == 12


async def test_a_gap_is_cut_within_its_bounds(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n} for n in range(100)])
    read_at = OpTime.of(mark(client))
    low, high = bson.encode({"_id": 20}), bson.encode({"_id": 50})
    async with open_node(one_node) as node:
        row = await _row(node, "db.c", read_at)
        found = find_ranges(
            node,
            ns="db.c",
            uuid=row.uuid,
            read_at=read_at,
            skip=11,
            start=low,
            end=high,
        )
        cut = [pair async for pair in found]
        assert [pair[0] for pair in cut] == [bson.encode({"_id": n}) for n in (20, 31, 42)]
        assert cut[-1][1] == high


async def test_boundaries_are_found_without_fetching_a_document(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n, "text": "x" * 100} for n in range(1000)])
    read_at = OpTime.of(mark(client))

    def fetched() -> int:
        return int(
            client.admin.command("serverStatus")["metrics"]["queryExecutor"]["scannedObjects"]
        )

    async with open_node(one_node) as node:
        row = await _row(node, "db.c", read_at)
        before = fetched()
        found = find_ranges(node, ns="db.c", uuid=row.uuid, read_at=read_at, skip=100)
        assert len([pair async for pair in found]) == 10
        assert fetched() - before < 100


async def test_a_reader_that_stops_early_leaves_no_cursor_open(one_node: ReplicaSet) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n} for n in range(100)])
    read_at = OpTime.of(mark(client))

    def open_cursors() -> int:
        return int(client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])

    before = open_cursors()
    async with open_node(one_node) as node:
        row = await _row(node, "db.c", read_at)
        for concern in (at_snapshot(read_at), after(read_at)):
            find = Find("db", row.uuid, "db.c", concern, batch_size=5)
            async with raw_batches(node, find) as batches:
                async for batch in batches:
                    assert batch.cursor_id
                    assert open_cursors() == before + 1
                    break
            assert open_cursors() == before
