"""How a range is asked for, and what an error of the server means for a reader."""

from __future__ import annotations

import struct
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from pymongo.errors import (
    AutoReconnect,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from agent.errors import ConfigError, NodeUnavailable, PermissionDenied, TidelogError
from agent.mongo.cursor import (
    CollectionGone,
    Find,
    SnapshotLost,
    _reading,
    at_snapshot,
    bounds,
    uuid_binary,
)
from agent.mongo.translate import CommandFailed, translated
from agent.wire.optime import OpTime
from tests.unit.archive.strategies import FAR_DATE, SCALARS

LOW, HIGH = bson.encode({"_id": 1}), bson.encode({"_id": "b"})


def _raw(value: Any) -> bytes:
    return bson.encode({"found": value})


def test_no_bounds_are_no_options() -> None:
    assert bounds(None, None, is_clustered=False) == {}
    assert bounds(None, None, is_clustered=True) == {}


@pytest.mark.parametrize("is_clustered", [False, True])
def test_closed_bounds_are_index_bounds_which_cross_types(is_clustered: bool) -> None:
    found = bounds(LOW, HIGH, is_clustered=is_clustered)
    assert list(found) == ["hint", "min", "max"]
    assert found["min"].raw == LOW
    assert found["max"].raw == HIGH
    assert "min" not in bounds(None, HIGH, is_clustered=is_clustered)


def test_an_open_end_of_an_index_is_an_expression_which_includes_max_key() -> None:
    found = bounds(LOW, None, is_clustered=False)
    assert "min" not in found
    assert bson.encode(found) == bson.encode(
        {"filter": {"$expr": {"$gte": ["$_id", {"$literal": 1}]}}, "hint": {"_id": 1}}
    )
    assert bounds(LOW, None, is_clustered=True)["min"].raw == LOW


@given(value=SCALARS)
def test_a_bound_of_any_type_is_passed_on_as_it_is(value: Any) -> None:
    bound = bson.encode({"_id": value})
    found = bounds(bound, None, is_clustered=False)
    literal: RawBSONDocument = found["filter"]["$expr"]["$gte"][1]
    assert literal.raw == bson.encode({"$literal": value})


@pytest.mark.parametrize(
    "value",
    [
        (b"\x06", b""),  # undefined
        (b"\x0e", struct.pack("<i", 2) + b"s\0"),  # symbol
        (b"\x09", struct.pack("<q", FAR_DATE.__int__())),
        (b"\x02", struct.pack("<i", 3) + b"\xff\xfe\0"),  # a string that is no UTF-8
    ],
)
def test_a_bound_that_python_cannot_hold_is_passed_on_as_it_is(value: tuple[bytes, bytes]) -> None:
    kind, content = value
    body = kind + b"_id\0" + content + b"\0"
    found = bounds(struct.pack("<i", len(body) + 4) + body, None, is_clustered=False)
    literal = found["filter"]["$expr"]["$gte"][1]
    expected = kind + b"$literal\0" + content + b"\0"
    assert literal.raw == struct.pack("<i", len(expected) + 4) + expected
    assert expected in bson.encode(found)


def test_a_find_names_the_collection_by_uuid_and_never_by_name() -> None:
    uuid = "00112233445566778899aabbccddeeff"
    find = Find("db", uuid, "db.name", at_snapshot(OpTime(T=5, I=6)), {"hint": {"_id": 1}})
    command = find.command()
    assert command["find"] == uuid_binary(uuid)
    assert "name" not in repr(command)
    assert command["readConcern"]["atClusterTime"] == OpTime(T=5, I=6).timestamp()


_COMMITTED = "collection dropped. UUID 1-2-3"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (26, "Unable to resolve 1-2-3", CollectionGone),
        (175, _COMMITTED, CollectionGone),
        (175, "collection renamed from 'a' to 'b'. UUID 1-2-3", SnapshotLost),
        (175, "index '_id_' dropped", SnapshotLost),
        (246, "pending collection catalog changes", SnapshotLost),
        (239, "Read timestamp is older than the oldest available timestamp", SnapshotLost),
        (136, "CollectionScan died due to position in capped collection", SnapshotLost),
        (
            13,
            "Requested getMore on namespace 'a.b', but cursor belongs to a different namespace a.c",
            SnapshotLost,
        ),
        (43, "cursor id 7 not found", NodeUnavailable),
        (11602, "operation was interrupted", NodeUnavailable),
        (13, "not authorized on db", PermissionDenied),
        (18, "Authentication failed.", ConfigError),
        (2, "BadValue", CommandFailed),
    ],
)
def test_what_a_server_error_means_for_a_reader(
    code: int, text: str, expected: type[TidelogError]
) -> None:
    with pytest.raises(TidelogError) as caught, _reading("db.c"):
        raise OperationFailure(text, code)
    assert type(caught.value) is expected
    assert "reading db.c" in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("connection closed"),
        NetworkTimeout("timed out"),
        ServerSelectionTimeoutError("No servers found yet, Timeout: 30s, Topology: secret"),
        ExecutionTimeout("operation exceeded time limit", 50),
        OperationFailure("retry me", 1, {"errorLabels": ["RetryableWriteError"]}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_node_that_does_not_answer_is_worth_another_try(error: Exception) -> None:
    with pytest.raises(NodeUnavailable, match="counting") as caught, translated("counting"):
        raise error
    assert "Topology" not in str(caught.value)


def test_our_own_errors_pass_unchanged() -> None:
    mine = NodeUnavailable("mine")
    with pytest.raises(NodeUnavailable) as caught, translated("anything"):
        raise mine
    assert caught.value is mine
