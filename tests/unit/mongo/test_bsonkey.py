"""Keys of `_id`s sort, and are equal, as the server's index holds them.

That the order really is the server's is shown by `tests/integration/restore/test_order.py`.
"""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import IntegrityError
from agent.mongo.bsonkey import id_key, value_key


def key(value: Any) -> Any:
    return id_key(bson.encode({"before": 1, "_id": value}))


IN_ORDER: list[Any] = [
    MinKey(),
    None,
    float("nan"),
    float("-inf"),
    -(2.0**70),
    Int64(-(2**62)),
    -1,
    -0.5,
    0,
    Decimal128("0.1"),
    0.1,
    1,
    Decimal128("1.5"),
    Int64(2**53),
    Int64(2**53 + 1),
    float("inf"),
    "",
    "A",
    "a",
    "a\0",
    "ab",
    "ä",
    {},
    {"a": 1},
    {"a": 1, "b": 1},
    {"a": 2},
    {"b": 0},
    {"a": "x"},
    [],
    [1],
    [1, 0],
    ["a"],
    Binary(b"z"),
    Binary(b"aa"),
    Binary(b"ab"),
    Binary(b"aa", 4),
    ObjectId("0" * 24),
    ObjectId("f" * 24),
    False,
    True,
    bson.DatetimeMS(-5),
    bson.DatetimeMS(5),
    Timestamp(1, 2),
    Timestamp(2, 1),
    Regex("a"),
    Regex("a", "i"),
    Regex("b"),
    Code("x"),
    Code("x", {}),
    Code("x", {"a": 1}),
    MaxKey(),
]


def test_values_of_all_types_sort_as_the_server_sorts_them() -> None:
    keys = [key(value) for value in IN_ORDER]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "same",
    [
        [1, 1.0, Int64(1), Decimal128("1"), Decimal128("1.00")],
        [0, 0.0, -0.0, Decimal128("-0"), Decimal128("0E+3")],
        [float("nan"), -float("nan"), Decimal128("NaN")],
        [float("inf"), Decimal128("Infinity")],
        [0.5, Decimal128("0.50")],
        [{"a": 1}, {"a": 1.0}, {"a": Int64(1)}],
        [Int64(2**62), Decimal128(str(2**62))],
    ],
)
def test_values_that_the_index_holds_equal_have_one_key(same: list[Any]) -> None:
    assert len({key(value) for value in same}) == 1
    assert all(key(value) == key(same[0]) for value in same)


def test_a_symbol_equals_the_string_of_its_text() -> None:
    text = struct.pack("<i", 2) + b"a\0"
    assert value_key(0x0E, text) == value_key(0x02, text)


def test_a_pointer_sorts_by_its_length_first() -> None:
    def pointer(name: bytes) -> Any:
        return value_key(0x0C, struct.pack("<i", len(name) + 1) + name + b"\0" + bytes(12))

    assert pointer(b"b") < pointer(b"aa")
    assert key(Regex("z")) < pointer(b"b") < key(Code(""))


def test_a_reference_is_a_document() -> None:
    assert key(DBRef("c", 1)) == key({"$ref": "c", "$id": 1})


@pytest.mark.parametrize("document", [{}, {"id": 1}])
def test_a_document_without_an_id_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        id_key(bson.encode(document))


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(IntegrityError, match="0x55"):
        value_key(0x55, b"")


NUMBERS = st.one_of(
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(allow_nan=False),
)


@given(NUMBERS, NUMBERS)
def test_numbers_compare_by_value_whatever_their_type(a: Any, b: Any) -> None:
    assert (key(a) < key(b)) == (a < b)
    assert (key(a) == key(b)) == (a == b)
    if a == b:
        assert hash(key(a)) == hash(key(b))
