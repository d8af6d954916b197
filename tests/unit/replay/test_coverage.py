"""What the base holds is not applied again, and nothing else is left out."""

from __future__ import annotations

import base64
from typing import Any

import bson
from hypothesis import given
from hypothesis import strategies as st

from agent.archive.manifest import CollectionEntry, Segment
from agent.mongo.bsonkey import id_key
from agent.replay.coverage import coverage_of
from agent.wire.optime import OpTime

CATALOGUE_AT = OpTime(T=10, I=0)


def entry(**options: Any) -> CollectionEntry:
    return CollectionEntry(ns="db.c", uuid="0" * 32, options=options)


def bound(value: Any) -> str | None:
    return None if value is None else base64.b64encode(bson.encode({"_id": value})).decode()


def segment(read_at: int, low: Any = None, high: Any = None, *, fuzzy: bool = False) -> Segment:
    return Segment(
        uuid="0" * 32,
        length=1,
        count=1,
        read_at=OpTime(T=read_at, I=0),
        is_fuzzy=fuzzy,
        min=bound(low),
        max=bound(high),
    )


def at(seconds: int) -> int:
    return OpTime(T=seconds, I=0).pack()


def key(value: Any) -> Any:
    return id_key(bson.encode({"_id": value}))


def test_one_read_is_one_comparison() -> None:
    found = coverage_of(entry(), [segment(12)], CATALOGUE_AT)
    assert (found.floor, found.ceiling, found.is_lenient) == (at(12), at(12), False)


def test_ranges_read_at_one_moment_are_one_comparison() -> None:
    found = coverage_of(entry(), [segment(12, None, 5), segment(12, 5, None)], CATALOGUE_AT)
    assert (found.floor, found.ceiling, found.is_lenient) == (at(12), at(12), False)


def test_a_hole_between_ranges_may_have_been_read_later() -> None:
    found = coverage_of(entry(), [segment(12, None, 5), segment(12, 7, None)], CATALOGUE_AT)
    assert found.is_lenient


def test_an_empty_collection_without_a_segment_is_replayed_from_the_catalogue_on() -> None:
    found = coverage_of(entry(), [], CATALOGUE_AT)
    assert (found.floor, found.ceiling, found.is_lenient) == (at(10), at(10), True)


def test_what_was_read_while_writes_went_on_is_replayed_from_where_reading_began() -> None:
    found = coverage_of(entry(capped=True), [segment(12, fuzzy=True)], CATALOGUE_AT)
    assert (found.floor, found.is_lenient) == (at(12), True)


def test_only_the_server_orders_a_collation() -> None:
    chunks = [segment(12, None, "m"), segment(14, "m", None)]
    found = coverage_of(entry(collation={"locale": "de"}), chunks, CATALOGUE_AT)
    assert (found.floor, found.ceiling, found.is_lenient) == (at(12), at(12), True)


def test_ranges_read_at_several_moments_are_told_apart_by_the_identity() -> None:
    chunks = [segment(14, 5, "m"), segment(12, None, 5), segment(13, "m", None)]
    found = coverage_of(entry(), chunks, CATALOGUE_AT)
    assert (found.floor, found.ceiling, found.is_lenient) == (at(12), at(14), False)
    assert not found.holds(key(4), at(13))
    assert found.holds(key(5.0), at(13))
    assert found.holds(key("l"), at(14))
    assert not found.holds(key("m"), at(14))
    assert found.holds(key(True), at(13))


READS = st.lists(st.integers(11, 15), min_size=1, max_size=6)


@given(READS, st.integers(-1, 60), st.integers(10, 16))
def test_each_identity_is_held_by_its_range(reads: list[int], identity: int, visible: int) -> None:
    last = len(reads) - 1
    chunks = [
        segment(read_at, n * 10 if n else None, (n + 1) * 10 if n < last else None)
        for n, read_at in enumerate(reads)
    ]
    found = coverage_of(entry(), chunks, CATALOGUE_AT)
    mine = reads[min(max(identity // 10, 0), last)]
    if at(visible) <= found.floor:
        held = True
    elif at(visible) > found.ceiling:
        held = False
    else:
        held = found.holds(key(identity), at(visible))
    assert held == (visible <= mine)
    assert not found.is_lenient


@given(READS, st.integers(0, 5), st.integers(0, 60), st.integers(11, 16))
def test_where_a_range_left_no_chunk_replay_begins_early(
    reads: list[int], missing: int, identity: int, visible: int
) -> None:
    last = len(reads) - 1
    chunks = [
        segment(read_at, n * 10 if n else None, (n + 1) * 10 if n < last else None)
        for n, read_at in enumerate(reads)
        if n != missing
    ]
    found = coverage_of(entry(), chunks, CATALOGUE_AT)
    if missing <= last and min(identity // 10, last) == missing and visible > found.floor / 2**32:
        held = at(visible) <= found.ceiling and found.holds(key(identity), at(visible))
        assert not held or not chunks
        assert found.is_lenient
