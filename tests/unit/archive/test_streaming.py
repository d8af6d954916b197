"""Manifests and journals are read element by element, into rows that share what they can."""

from __future__ import annotations

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.archive.manifest import ChunkObject, CollectionEntry, Manifest, Segment
from agent.archive.sharing import shared_bson, shared_extended
from agent.archive.streaming import parse_rows
from agent.operations.backup.journal import Begun, Entry, FinishedUnit
from agent.wire.optime import OpTime

AT = OpTime(T=7, I=1)
ROW_BYTES = 1_200
"""What a collection may take in memory: its entry and its one segment."""
names = st.text(min_size=1, max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def _manifest(catalogue: tuple[CollectionEntry, ...]) -> Manifest:
    segments = tuple(
        Segment(uuid=entry.uuid, offset=40 * n, length=40, count=1, read_at=AT)
        for n, entry in enumerate(catalogue)
    )
    chunk = ChunkObject(key="k", size_bytes=1, sha256="0", plain_bytes=2, segments=segments)
    return Manifest(
        backup="b",
        op_id="1" * 24,
        replset="rs0",
        epoch=1,
        first_write=AT,
        catalogue_at=AT,
        read_end=AT,
        last_write=AT,
        catalogue=catalogue,
        objects=(chunk,),
        slices=(),
    )


def _entries(count: int) -> tuple[CollectionEntry, ...]:
    identity = {"v": {"$numberInt": "2"}, "key": {"_id": {"$numberInt": "1"}}, "name": "_id_"}
    return tuple(
        CollectionEntry(ns=f"many.c{n}", uuid=f"{n:032x}", indexes=(dict(identity),))
        for n in range(count)
    )


@given(st.dictionaries(names, values, max_size=4), st.sampled_from([None, 0, 3]))
def test_what_is_read_is_what_was_written(options: dict[str, Any], indent: int | None) -> None:
    entry = CollectionEntry(ns='a."b', uuid="f" * 32, options=options, indexes=(options,))
    manifest = _manifest((entry,))
    assert Manifest.parse(manifest.model_dump_json(exclude_none=True, indent=indent).encode()) == (
        manifest
    )
    begun = Begun(first_write=AT, catalogue_at=AT, catalogue=(entry,))
    journal = Entry(begun=begun, units=(FinishedUnit(objects=manifest.objects),), gone=("u",))
    assert Entry.parse(journal.model_dump_json(exclude_none=True, indent=indent).encode()) == (
        journal
    )


@given(st.dictionaries(names, values, max_size=4))
def test_lists_that_are_not_named_stay_plain(document: dict[str, Any]) -> None:
    assert parse_rows(json.dumps(document), {"\0": CollectionEntry}) == document


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a"', '{"a":', '{"a":1', '{"a":1,}', '{"a":1}x', "{1:2}", '{"rows":[{}]}'],
)
def test_what_is_no_such_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rows(text, {"rows": CollectionEntry})
    with pytest.raises(ValueError):
        Manifest.parse(text.encode())


@pytest.mark.parametrize("name", ["rows", "other"])
def test_what_is_nested_without_end_is_refused(name: str) -> None:
    text = f'{{"{name}": [' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "]}"
    with pytest.raises(ValueError, match="too deep"):
        parse_rows(text, {"rows": CollectionEntry})


def test_values_are_shared_by_threads_while_they_are_forgotten() -> None:
    documents = [{"n": number} for number in range(3_000)]  # more than are kept
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda one: shared_bson(shared_extended(one)), documents * 4):
            assert found == documents[found["n"]]


def _traced(data: bytes, count: int) -> tuple[float, float]:
    """What reading a manifest keeps, and takes at most, in bytes for each of its collections."""
    tracemalloc.start()
    try:
        manifest = Manifest.parse(data)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(manifest.catalogue) == count
    return kept / count, peak / count


def test_a_collection_takes_little_memory_and_reading_it_hardly_more() -> None:
    """100,000 collections within what an agent may take: 110 MB for the manifest as it is read."""
    count = 8_000
    data = _manifest(_entries(count)).model_dump_json(exclude_none=True).encode()
    # Twice: the interpreter's own table of texts may double its size the first time.
    kept, peak = min(_traced(data, count) for _ in range(2))
    assert kept <= ROW_BYTES
    # The text, and the one object that holds all segments, while it is decoded.
    assert peak <= 3 * ROW_BYTES


def test_rows_have_in_common_what_is_equal_to_the_type() -> None:
    first, second = _entries(2)
    assert first.indexes is second.indexes
    other = CollectionEntry(ns="a.b", uuid="e" * 32, options={"capped": True, "size": 1})
    same = CollectionEntry(ns="a.c", uuid="d" * 32, options={"size": 1, "capped": True})
    assert list(other.options) == ["capped", "size"]
    assert list(same.options) == ["size", "capped"]
    assert shared_extended({"n": 1}) != shared_extended({"n": 1.0})
    assert shared_extended({"n": 1}) is shared_extended({"n": 1})
    number = shared_bson({"n": {"$numberLong": "1"}})["n"]
    assert type(number) is not type(shared_bson({"n": {"$numberInt": "1"}})["n"])


def test_a_copy_of_a_row_is_as_small() -> None:
    (entry,) = _entries(1)
    copied = entry.model_copy(update={"ns": "b.c"})
    assert (copied.ns, entry.ns) == ("b.c", "many.c0")
    assert copied.model_fields_set is entry.model_fields_set
    assert copied.model_dump() == {**entry.model_dump(), "ns": "b.c"}
