"""How two raw documents are told apart."""

from __future__ import annotations

from typing import Any

import bson
import pytest

from tests.support.documents import describe_difference, describe_document, identity


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}, "document: field order ['x', 'y'] against ['y', 'x']"),
        ({"x": {"a": 1}}, {"x": {"a": 2}}, "x.a: int 1 against int 2"),
        ({"x": 1}, {"x": 1.0}, "x: int 1 against float 1.0"),
        ({"x": 1}, {"x": bson.Int64(1)}, "x: int 1 against Int64 1"),
        ({"x": 0.0}, {"x": -0.0}, "x: float 0.0 against float -0.0"),
        ({"x": [1, 2]}, {"x": [1]}, "x: 2 elements against 1"),
        ({"x": [{"k": 1}]}, {"x": [{"k": 2}]}, "x[0].k: int 1 against int 2"),
        ({"x": 1}, {}, "fields only in the first ['x'], only in the second []"),
    ],
)
def test_difference_names_the_path(a: dict[str, Any], b: dict[str, Any], expected: str) -> None:
    assert expected in describe_difference(bson.encode(a), bson.encode(b))


def test_what_decoding_hides_is_still_a_difference() -> None:
    doubled = bson.encode({"a": 1, "b": 2}).replace(b"b\0", b"a\0")
    assert "not byte for byte" in describe_difference(doubled, bson.encode({"a": 2}))


def test_identity_tells_types_apart_and_holds_what_python_cannot() -> None:
    far = bson.encode({"_id": bson.DatetimeMS(2**63 - 1)})
    assert identity(far) == far
    assert identity(bson.encode({"_id": 1})) != identity(bson.encode({"_id": 1.0}))
    assert describe_document(bson.encode({"_id": "x", "a": 1})) == "str 'x'"
