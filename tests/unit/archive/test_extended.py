"""Options and index specifications come back as they were, to the type and the order."""

from __future__ import annotations

import json
from typing import Any

import bson
import pytest
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from agent.archive.extended import EXACT, from_extended, to_extended
from agent.archive.manifest import CollectionEntry
from tests.unit.archive.strategies import DOCUMENTS, FAR_DATE, NAMES, same_bson


def _through_json(document: dict[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(to_extended(document)))
    return from_extended(stored)


@given(document=DOCUMENTS)
def test_documents_come_back_exactly(document: dict[str, Any]) -> None:
    assert same_bson(_through_json(document), document)


@pytest.mark.parametrize(
    "value",
    [
        1,
        Int64(1),
        1.0,
        -0.0,
        float("inf"),
        2**31 - 1,
        Int64(2**63 - 1),
        Decimal128("1.50"),
        Decimal128("NaN"),
        DatetimeMS(0),
        FAR_DATE,
        DatetimeMS(-(2**63)),
        Regex("^a", "im"),
        Binary(bytes(range(16)), 4),
        Binary(bytes(range(16)), 3),
        b"plain",
        Timestamp(2**32 - 1, 2**32 - 1),
        Code("f()"),
        Code("f()", {"x": Int64(1)}),
        MinKey(),
        MaxKey(),
        None,
        True,
    ],
    ids=repr,
)
def test_the_type_stays(value: Any) -> None:
    document = {"expireAfterSeconds": value, "list": [value], "deep": {"er": value}}
    assert same_bson(_through_json(document), document)
    assert EXACT not in to_extended(document)


@pytest.mark.parametrize(
    "query",
    [
        {"$regex": "^a"},
        {"$regex": "^a", "$options": "i"},
        {"$regex": Regex("^a"), "$options": "s"},
        {"$type": "string"},
        {"$in": [{"$type": 2}]},
        {"$ref": "x", "$id": 1},
    ],
    ids=repr,
)
def test_query_operators_of_a_validator_stay_query_operators(query: dict[str, Any]) -> None:
    document = {"validator": {"name": query}}
    assert same_bson(_through_json(document), document)
    assert EXACT not in to_extended(document)


@pytest.mark.parametrize(
    "twin",
    [
        {"$oid": "0123456789abcdef01234567"},
        {"$numberLong": "1"},
        {"$date": {"$numberLong": "1"}},
        {"$oid": 1},
        {"$binary": {"base64": "", "subType": "00"}},
        {"$minKey": 1},
        {"$regularExpression": {"pattern": "a", "options": "?"}},
    ],
    ids=repr,
)
def test_a_document_that_looks_like_a_wrapper_comes_back_too(twin: dict[str, Any]) -> None:
    document = {"capped": True, "validator": {"$expr": {"$eq": ["$a", {"$literal": twin}]}}}
    assert same_bson(_through_json(document), document)
    assert to_extended(document)["capped"] is True


@given(names=st.permutations(["z", "a", "m", "b"]), inner=st.lists(NAMES, unique=True))
def test_fields_keep_their_order(names: list[str], inner: list[str]) -> None:
    document = {name: {key: 1 for key in inner if key != "$ref"} for name in names}
    found = _through_json(document)
    assert list(found) == names
    assert same_bson(found, document)


def test_what_older_spellings_mean_is_not_read_into_documents() -> None:
    assert from_extended({"a": {"$uuid": "x"}}) == {"a": {"$uuid": "x"}}
    assert from_extended({"a": {"$binary": "AA==", "$type": "00"}}) == {
        "a": {"$binary": "AA==", "$type": "00"}
    }


def test_a_collection_keeps_options_and_indexes_verbatim() -> None:
    options = {
        "validator": {"name": {"$regex": "^a", "$options": "i"}},
        "collation": {"locale": "sv", "strength": 3, "caseLevel": False},
        "clusteredIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_", "unique": True},
        "expireAfterSeconds": Int64(3600),
    }
    spec = {
        "v": 2,
        "key": {"b": -1.0, "a": 1, "loc": "2dsphere"},
        "name": "n",
        "partialFilterExpression": {"at": {"$gt": FAR_DATE}, "re": Regex("x", 2)},
    }
    entry = CollectionEntry(
        ns="d.c", uuid="0" * 32, options=to_extended(options), indexes=(to_extended(spec),)
    )
    again = CollectionEntry.model_validate_json(entry.model_dump_json())
    assert bson.encode(again.bson_options()) == bson.encode(options)
    assert [bson.encode(index) for index in again.bson_indexes()] == [bson.encode(spec)]
    assert again.is_clustered
    assert not again.is_capped
