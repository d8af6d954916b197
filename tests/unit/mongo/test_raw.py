"""Cutting replies by their lengths gives what decoding them would."""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import NodeUnavailable
from agent.mongo.raw import cut_cursor_reply, documents, elements
from tests.unit.archive.strategies import DOCUMENTS


def _reply(
    batch: list[Any], *, cursor_id: int = 0, first: bool = True, at: Timestamp | None = None
) -> bytes:
    cursor: dict[str, Any] = {"firstBatch" if first else "nextBatch": batch}
    if at is not None:
        cursor["atClusterTime"] = at
    cursor |= {"id": Int64(cursor_id), "ns": "db.collection"}
    signature = {"hash": b"\0" * 20, "keyId": Int64(7)}
    return bson.encode(
        {
            "cursor": cursor,
            "ok": 1.0,
            "$clusterTime": {"clusterTime": Timestamp(5, 6), "signature": signature},
            "operationTime": Timestamp(5, 6),
        }
    )


@settings(deadline=None)
@given(
    batch=st.lists(DOCUMENTS, max_size=25),
    cursor_id=st.integers(-(2**63), 2**63 - 1),
    first=st.booleans(),
    at=st.none() | st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_a_cut_reply_is_what_decoding_would_give(
    batch: list[dict[str, Any]], cursor_id: int, first: bool, at: Timestamp | None
) -> None:
    raw = [RawBSONDocument(bson.encode(document)) for document in batch]
    found = cut_cursor_reply(_reply(raw, cursor_id=cursor_id, first=first, at=at))
    assert found.documents == b"".join(map(bson.encode, batch))
    assert found.count == len(batch)
    assert found.cursor_id == cursor_id
    assert found.ns == "db.collection"
    assert found.at_cluster_time == (None if at is None else at.time << 32 | at.inc)


@settings(deadline=None)
@given(count=st.integers(0, 12_000), size=st.integers(0, 30))
@example(count=0, size=0)
@example(count=1, size=0)
@example(count=9, size=3)
@example(count=10, size=3)
@example(count=11, size=3)
@example(count=99, size=3)
@example(count=100, size=3)
@example(count=101, size=3)
@example(count=999, size=3)
@example(count=1000, size=3)
@example(count=1001, size=3)
@example(count=9999, size=3)
@example(count=10_000, size=3)
@example(count=10_001, size=3)
@example(count=100_001, size=0)
def test_documents_are_counted_from_lengths_alone(count: int, size: int) -> None:
    document = RawBSONDocument(bson.encode({"_id": b"x" * size}))
    found = cut_cursor_reply(_reply([document] * count))
    assert found.count == count
    assert len(found.documents) == count * len(document.raw)


_ONE_OF_EACH: list[tuple[int, Any]] = [
    (0x01, 1.5),
    (0x02, "text with \0 inside and ü"),
    (0x03, {"a": {"b": 1}}),
    (0x04, [1, [2], {"c": 3}]),
    (0x05, Binary(b"x\0y", 128)),
    (0x05, Binary(b"old", 2)),
    (0x07, ObjectId()),
    (0x08, True),
    (0x09, bson.DatetimeMS(-1)),
    (0x0A, None),
    (0x0B, Regex("a.*", 2 | 8)),
    (0x0B, Regex("", 0)),
    (0x0D, Code("f()")),
    (0x0F, Code("f()", {"x": {"y": 1}})),
    (0x10, 7),
    (0x11, Timestamp(1, 2)),
    (0x12, Int64(8)),
    (0x13, Decimal128("1.5")),
    (0xFF, MinKey()),
    (0x7F, MaxKey()),
]


def test_elements_of_every_type_are_walked_by_their_lengths() -> None:
    data = bson.encode({f"field {n}": value for n, (_, value) in enumerate(_ONE_OF_EACH)})
    found = list(elements(data))
    assert [element.kind for element in found] == [kind for kind, _ in _ONE_OF_EACH]
    assert [element.name.decode() for element in found] == [
        f"field {n}" for n in range(len(_ONE_OF_EACH))
    ]
    for element, (_, value) in zip(found, _ONE_OF_EACH, strict=True):
        alone = bson.encode({"": value})
        assert data[element.start : element.end] == alone[6:-1]


_OLD_TYPES = [
    (0x06, b""),  # undefined
    (0x0E, struct.pack("<i", 4) + b"sym\0"),  # symbol
    (0x0C, struct.pack("<i", 4) + b"d.c\0" + bytes(range(12))),  # DBPointer
]


@pytest.mark.parametrize(("kind", "value"), _OLD_TYPES)
def test_elements_of_types_that_no_driver_writes_any_more_are_walked(
    kind: int, value: bytes
) -> None:
    content = bytes([kind]) + b"old\0" + value + b"\x10after\0\x07\0\0\0" + b"\0"
    data = struct.pack("<i", len(content) + 4) + content
    old, after = elements(data)
    assert (old.kind, old.name, data[old.start : old.end]) == (kind, b"old", value)
    assert (after.kind, after.name, after.end) == (0x10, b"after", len(data) - 1)


@given(document=DOCUMENTS)
def test_elements_are_those_of_the_decoded_document(document: dict[str, Any]) -> None:
    data = bson.encode(document)
    found = list(elements(data))
    assert [element.name.decode() for element in found] == list(document)
    assert found == [] or found[-1].end == len(data) - 1


def test_elements_of_an_inner_document_are_found_at_its_place() -> None:
    data = bson.encode({"before": 1, "inner": {"a": 1, "b": "x"}, "after": 2})
    inner = next(element for element in elements(data) if element.name == b"inner")
    assert [element.name for element in elements(data, inner.start)] == [b"a", b"b"]


def test_an_unknown_type_is_an_error_and_not_a_guess() -> None:
    data = bytearray(bson.encode({"a": 1}))
    data[4] = 0x42
    with pytest.raises(NodeUnavailable, match="0x42"):
        list(elements(bytes(data)))


@given(batch=st.lists(DOCUMENTS, max_size=8))
def test_concatenated_documents_are_told_apart(batch: list[dict[str, Any]]) -> None:
    data = b"".join(map(bson.encode, batch))
    assert [data[start:end] for start, end in documents(data)] == list(map(bson.encode, batch))
