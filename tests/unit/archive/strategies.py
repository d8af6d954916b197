"""Documents as they may stand in options, index specifications and chunk bounds."""

from __future__ import annotations

import datetime
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
)
from hypothesis import strategies as st

from agent.archive.framing import Frame
from agent.wire.optime import OpTime

_INT64: Final = st.integers(-(2**63), 2**63 - 1)
_TEXT: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)

NAMES: Final = _TEXT | st.sampled_from(
    ["$regex", "$options", "$ref", "$id", "$oid", "$date", "$type", "$binary", "$uuid", "$code"]
)
"""Field names, among them those that older spellings of Extended JSON give a meaning."""

SCALARS: Final[st.SearchStrategy[Any]] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    _INT64.map(Int64),
    st.floats(allow_nan=False),
    _TEXT,
    st.binary(max_size=12),
    st.builds(Binary, st.binary(min_size=16, max_size=16), st.just(4)),
    st.builds(Binary, st.binary(max_size=12), st.sampled_from([1, 3, 5, 6, 128, 255])),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    _INT64.map(DatetimeMS),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(Regex, _TEXT, st.sampled_from([0, 2, 2 | 8, 2 | 4 | 8 | 16 | 64])),
    st.decimals(allow_nan=False, places=3, min_value=-1000, max_value=1000).map(
        lambda number: Decimal128(str(number))
    ),
    st.builds(Code, _TEXT),
    st.builds(lambda text, scope: Code(text, {"x": scope}), _TEXT, st.integers(0, 9)),
    st.just(MinKey()),
    st.just(MaxKey()),
)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)


DOCUMENTS: Final[st.SearchStrategy[dict[str, Any]]] = st.dictionaries(
    _TEXT.filter(lambda name: not name.startswith("$")),
    st.recursive(SCALARS, _nested, max_leaves=6),
    max_size=5,
).filter(lambda document: not _holds_reference(document))
"""The driver decodes a DBRef-like document to a type of its own, so none of those."""

OPTIMES: Final = st.builds(OpTime, T=st.integers(0, 2**32 - 1), I=st.integers(0, 2**32 - 1))
"""Every OpTime that an object key can hold."""

FRAMES: Final = st.lists(
    st.builds(Frame, st.binary(max_size=40), st.integers(0, 2**40)), max_size=5
)
FAR_DATE: Final = DatetimeMS(2**63 - 1)
NEAR_DATE: Final = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)


def _holds_reference(value: Any) -> bool:
    if isinstance(value, dict):
        return "$ref" in value or any(map(_holds_reference, value.values()))
    return isinstance(value, list) and any(map(_holds_reference, value))


def same_bson(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Equal in types, values and the order of fields."""
    return bson.encode(a) == bson.encode(b)
