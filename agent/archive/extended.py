"""Canonical Extended JSON v2, read strictly: what stands in a manifest for BSON values.

The driver's own reader also accepts older spellings, and so takes the query `{"$regex": "^a"}`,
which validators are full of, for a regular expression. Here only the canonical wrappers are values,
with exactly their keys; every other document is a document. A document that itself looks like a
wrapper is the one thing that Extended JSON cannot say: its exact BSON goes along as `$bson`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Final

import bson
from bson import (
    Binary,
    Code,
    DatetimeMS,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    json_util,
)
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.json_util import JSONMode, JSONOptions

EXACT: Final = "$bson"
"""Beside the readable fields: base64 of the document where they alone would not be exact."""

_WRITTEN: Final = JSONOptions(
    json_mode=JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_DECODED: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_REGEX_FLAGS: Final = {"i": 2, "l": 4, "m": 8, "s": 16, "u": 32, "x": 64}


def to_extended(document: dict[str, Any]) -> dict[str, Any]:
    """BSON values as canonical Extended JSON."""
    converted: dict[str, Any] = json.loads(json_util.dumps(document, json_options=_WRITTEN))
    exact = bson.encode(document)
    if not _says(converted, exact):
        converted[EXACT] = base64.b64encode(exact).decode()
    return converted


def from_extended(document: dict[str, Any]) -> dict[str, Any]:
    """The reverse."""
    if isinstance(document.get(EXACT), str):
        return bson.decode(base64.b64decode(document[EXACT]), _DECODED)
    return {name: _value(value) for name, value in document.items()}


def _says(converted: dict[str, Any], exact: bytes) -> bool:
    try:
        return bson.encode(from_extended(converted)) == exact
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, BSONError):
        return False


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    make = _WRAPPERS.get(tuple(value))
    if make is not None:
        return make(value)
    return {name: _value(item) for name, item in value.items()}


def _binary(value: dict[str, Any]) -> Any:
    described = value["$binary"]
    data, subtype = base64.b64decode(described["base64"]), int(described["subType"], 16)
    return Binary(data, subtype) if subtype else data


def _regex(value: dict[str, Any]) -> Regex[str]:
    described = value["$regularExpression"]
    return Regex(described["pattern"], sum(_REGEX_FLAGS[flag] for flag in described["options"]))


def _timestamp(value: dict[str, Any]) -> Timestamp:
    return Timestamp(value["$timestamp"]["t"], value["$timestamp"]["i"])


_WRAPPERS: Final[dict[tuple[str, ...], Callable[[dict[str, Any]], Any]]] = {
    ("$oid",): lambda value: ObjectId(value["$oid"]),
    ("$numberInt",): lambda value: int(value["$numberInt"]),
    ("$numberLong",): lambda value: Int64(value["$numberLong"]),
    ("$numberDouble",): lambda value: float(value["$numberDouble"]),
    ("$numberDecimal",): lambda value: Decimal128(value["$numberDecimal"]),
    ("$date",): lambda value: DatetimeMS(int(value["$date"]["$numberLong"])),
    ("$binary",): _binary,
    ("$regularExpression",): _regex,
    ("$timestamp",): _timestamp,
    ("$code",): lambda value: Code(value["$code"]),
    ("$code", "$scope"): lambda value: Code(value["$code"], from_extended(value["$scope"])),
    ("$minKey",): lambda value: MinKey(),
    ("$maxKey",): lambda value: MaxKey(),
}
