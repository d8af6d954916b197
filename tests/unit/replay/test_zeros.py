"""Empty timestamps of inserted documents are put back."""

from __future__ import annotations

from typing import Any

import bson
from bson import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from agent.replay.zeros import may_hold_empty, restoring

EMPTY = Timestamp(0, 0)


def put_back(document: dict[str, Any]) -> dict[str, Any] | None:
    data = b"before" + bson.encode(document)
    body = restoring(data, 6)
    return None if body is None else bson.decode(_document(body))


def _document(body: bytes) -> bytes:
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"


def test_only_those_at_the_top_are_put_back() -> None:
    document = {"_id": "x", "a": EMPTY, "b": {"c": EMPTY}, "d.e": EMPTY, "f": Timestamp(1, 0)}
    assert put_back(document) == {
        "o": {"$v": 2, "diff": {"u": {"a": EMPTY, "d.e": EMPTY}}},
        "o2": {"_id": "x"},
    }


def test_an_empty_identity_stays_by_itself() -> None:
    assert put_back({"_id": EMPTY, "a": 1}) is None


VALUES = st.one_of(st.just(EMPTY), st.integers(0, 1), st.binary(max_size=12), st.just(0.0))


@given(st.dictionaries(st.text("ab\x11", min_size=1, max_size=3), VALUES, max_size=5))
def test_none_is_overlooked(fields: dict[str, Any]) -> None:
    document = {"_id": 1, **fields}
    data = bson.encode(document)
    expected = [name for name, value in fields.items() if value == EMPTY]
    assert may_hold_empty(data, 0, len(data)) or not expected
    found = put_back(document)
    assert list(found["o"]["diff"]["u"]) == expected if found else not expected
