"""Raw documents: how to read them exactly, and how to say in words where two of them differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.client_session import ClientSession

# Values that Python's own types cannot hold must be read and printed all the same.
RAW = CodecOptions(
    document_class=RawBSONDocument,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    unicode_decode_error_handler="replace",
)
_LENIENT: CodecOptions[dict[str, Any]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
_SHOWN = 160


def read_raw(
    client: MongoClient[dict[str, Any]],
    database: str,
    collection: str,
    *,
    at: Timestamp | None = None,
) -> Iterator[bytes]:
    """Every document as stored, in natural order; at a past cluster time if given."""
    command: dict[str, Any] = {"find": collection, "hint": {"$natural": 1}}
    if at is not None:
        command["readConcern"] = {"level": "snapshot", "atClusterTime": at}
    with client.start_session(causal_consistency=False) as session:
        cursor = _command(client, database, command, session)
        batch = cursor["firstBatch"]
        while True:
            for document in batch:
                yield document.raw
            if not cursor["id"]:
                return
            more = {"getMore": cursor["id"], "collection": collection}
            cursor = _command(client, database, more, session)
            batch = cursor["nextBatch"]


def identity(raw: bytes) -> bytes:
    """The type and bytes of a document's `_id`: equal only for the very same value."""
    document = RawBSONDocument(raw, RAW)
    return bson.encode({"_id": document["_id"]}) if "_id" in document else b""


def index_documents(documents: list[bytes]) -> dict[bytes, bytes]:
    """The documents by identity."""
    return {identity(raw): raw for raw in documents}


def describe_difference(a: bytes, b: bytes) -> str:
    """Where two documents with one `_id` differ: the first differing path, in one line."""
    left, right = bson.decode(a, _LENIENT), bson.decode(b, _LENIENT)
    return _difference("", left, right) or "equal when decoded, but not byte for byte"


def describe_document(raw: bytes) -> str:
    """A document's `_id` in one line."""
    return _shown(bson.decode(identity(raw), _LENIENT).get("_id"))


def _command(
    client: MongoClient[dict[str, Any]],
    database: str,
    command: dict[str, Any],
    session: ClientSession,
) -> Mapping[str, Any]:
    reply = client[database].command(command, codec_options=RAW, session=session)
    cursor: Mapping[str, Any] = reply["cursor"]
    return cursor


def _difference(path: str, a: object, b: object) -> str | None:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _mapping_difference(path, a, b)
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{path or 'document'}: {len(a)} elements against {len(b)}"
        pairs = zip(a, b, strict=True)
        found = (_difference(f"{path}[{i}]", *pair) for i, pair in enumerate(pairs))
        return next(filter(None, found), None)
    if _same(a, b):
        return None
    return f"{path}: {_shown(a)} against {_shown(b)}"


def _mapping_difference(path: str, a: Mapping[str, object], b: Mapping[str, object]) -> str | None:
    gone = [key for key in a if key not in b]
    new = [key for key in b if key not in a]
    if gone or new:
        return f"{path or 'document'}: fields only in the first {gone}, only in the second {new}"
    for key in a:
        found = _difference(f"{path}.{key}" if path else key, a[key], b[key])
        if found is not None:
            return found
    if list(a) != list(b):
        return f"{path or 'document'}: field order {list(a)} against {list(b)}"
    return None


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and bson.encode({"": a}) == bson.encode({"": b})


def _shown(value: object) -> str:
    text = f"{type(value).__name__} {value!r}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
