"""Values that very many rows have in common, kept once.

The collections of a cluster with 100,000 of them have few different options and indexes, and their
documents were read at few OpTimes. Who takes a value from here must not change it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

import bson

from agent.archive.extended import from_extended, to_extended
from agent.wire.optime import OpTime

_KEPT: Final = 1024
_LARGEST: Final = 4096
"""Characters, or bytes, of what is kept."""

_MISSING: Final = object()

T = TypeVar("T")
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_by_json: dict[str, Any] = {}
_by_bson: dict[bytes, dict[str, Any]] = {}
_decoded: dict[str, dict[str, Any]] = {}


def shared_document(value: T) -> T:
    """An equal value of JSON types, with its keys in the same order."""
    found: T = _kept(_by_json, _encode(value), lambda: value)
    return found


def shared_extended(document: dict[str, Any]) -> dict[str, Any]:
    """A document as `to_extended` has it, which takes much longer than to look it up."""
    key = bson.encode(document)
    found: dict[str, Any] = _kept(_by_bson, key, lambda: to_extended(document))
    return found


def shared_bson(document: dict[str, Any]) -> dict[str, Any]:
    """The reverse: a document as `from_extended` has it."""
    found: dict[str, Any] = _kept(_decoded, _encode(document), lambda: from_extended(document))
    return found


def shared_text(text: str) -> str:
    """An equal text; it is forgotten with the last who has it."""
    return sys.intern(text)


def shared_optime(moment: OpTime) -> OpTime:
    """An equal OpTime."""
    return _moment(moment.T, moment.I)


@lru_cache(maxsize=_KEPT)
def _moment(seconds: int, increment: int) -> OpTime:
    return OpTime(T=seconds, I=increment)


def _kept(known: dict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    found = known.get(key, _MISSING)
    if found is not _MISSING:
        return found
    made = make()
    if len(key) > _LARGEST:
        return made
    if len(known) >= _KEPT:
        known.clear()  # maybe while another thread looks: nobody counts on a key being there
    return known.setdefault(key, made)
