"""What has to be written to a small collection that may hold something already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bson
from bson import Int64
from hypothesis import given
from hypothesis import strategies as st

from agent.operations.restore.mending import difference, identity

ROWS = st.dictionaries(st.integers(0, 9), st.integers(0, 2))


def encoded(rows: Mapping[Any, Any]) -> list[bytes]:
    return [bson.encode({"_id": key, "value": value}) for key, value in rows.items()]


@given(ROWS, ROWS)
def test_deleting_and_inserting_what_differs_makes_what_was_wanted(
    wanted: dict[int, int], held: dict[int, int]
) -> None:
    extra, missing = difference(b"".join(encoded(wanted)), b"".join(encoded(held)))
    left = set(encoded(held)) - set(extra)
    assert left.isdisjoint(missing)
    assert sorted(left | set(missing)) == sorted(encoded(wanted))
    # What is left never has the `_id` of what is put in.
    assert {identity(each) for each in left}.isdisjoint(map(identity, missing))


def test_equal_numbers_of_other_types_are_other_documents() -> None:
    wanted, held = bson.encode({"_id": 1}), bson.encode({"_id": 1.0})
    assert difference(wanted, held) == ([held], [wanted])


def test_an_id_is_deleted_by_its_very_value() -> None:
    for value in (1, 1.0, Int64(1), "a", {"a": [1, 2]}, None, bson.ObjectId()):
        assert bson.decode(identity(bson.encode({"a": 0, "_id": value}))) == {"_id": value}
