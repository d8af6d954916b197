"""Cutting server replies without decoding documents.

A `find` reply is `{cursor: {firstBatch | nextBatch: [doc, doc, …], id, ns, atClusterTime?}, …}`.
The documents are what we are after; building a Python object for each would cost twenty times the
CPU of everything else. So the few elements around the batch are walked by their lengths, and the
array is turned into concatenated documents by one C call.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import bson

from agent.errors import NodeUnavailable

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_UINT64 = struct.Struct("<Q")

_FIXED_SIZES = {
    0x01: 8,  # double
    0x06: 0,  # undefined
    0x07: 12,  # ObjectId
    0x08: 1,  # boolean
    0x09: 8,  # date
    0x0A: 0,  # null
    0x10: 4,  # int32
    0x11: 8,  # timestamp
    0x12: 8,  # int64
    0x13: 16,  # decimal128
    0xFF: 0,  # MinKey
    0x7F: 0,  # MaxKey
}


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a BSON document: its type, its name, and where its value lies."""

    kind: int
    name: bytes
    start: int
    end: int


def elements(data: bytes, start: int = 0) -> Iterator[Element]:
    """The elements of the document that begins at `start`, by their lengths only."""
    end = start + _INT32.unpack_from(data, start)[0] - 1
    position = start + 4
    while position < end:
        kind = data[position]
        zero = data.index(b"\0", position + 1)
        name = data[position + 1 : zero]
        value = zero + 1
        position = value + _value_size(data, kind, value)
        yield Element(kind, name, value, position)


def _value_size(data: bytes, kind: int, start: int) -> int:
    fixed = _FIXED_SIZES.get(kind)
    if fixed is not None:
        return fixed
    if kind in (0x03, 0x04, 0x0F):  # document, array, code with scope: length counts itself
        return int(_INT32.unpack_from(data, start)[0])
    if kind in (0x02, 0x0D, 0x0E):  # string, code, symbol
        return 4 + int(_INT32.unpack_from(data, start)[0])
    if kind == 0x05:  # binary: length, subtype, bytes
        return 5 + int(_INT32.unpack_from(data, start)[0])
    if kind == 0x0B:  # regular expression: two C strings
        return data.index(b"\0", data.index(b"\0", start) + 1) + 1 - start
    if kind == 0x0C:  # DBPointer: string and ObjectId
        return 4 + int(_INT32.unpack_from(data, start)[0]) + 12
    raise NodeUnavailable(f"the server sent a BSON element of the unknown type 0x{kind:02x}")


@dataclass(frozen=True, slots=True)
class CursorReply:
    """One batch: `documents` is plain concatenated BSON, `cursor_id` 0 when nothing follows."""

    documents: bytes
    count: int
    cursor_id: int
    at_cluster_time: int | None
    """The packed OpTime of a snapshot read."""
    ns: str = ""
    """What the collection is called now: a `getMore` has to name it."""


def cut_cursor_reply(reply: bytes) -> CursorReply:
    """Cut a `find` or `getMore` reply."""
    cursor = next(e for e in elements(reply) if e.name == b"cursor")
    documents, count, cursor_id, at, ns = b"", 0, 0, None, ""
    for element in elements(reply, cursor.start):
        if element.name in (b"firstBatch", b"nextBatch"):
            batch = memoryview(reply)[element.start : element.end]
            documents = bson._array_of_documents_to_buffer(batch)
            count = _count(len(batch), len(documents))
        elif element.name == b"id":
            cursor_id = _INT64.unpack_from(reply, element.start)[0]
        elif element.name == b"atClusterTime":
            at = _UINT64.unpack_from(reply, element.start)[0]
        elif element.name == b"ns":
            ns = reply[element.start + 4 : element.end - 1].decode()
    return CursorReply(documents, count, cursor_id, at, ns)


def _count(array_bytes: int, document_bytes: int) -> int:
    """How many documents an array holds, from the bytes that are not documents: five around it,
    and for the i-th a type byte, the decimal digits of i and a zero byte."""
    rest = array_bytes - document_bytes - 5
    count, digits, block = 0, 1, 10
    while rest > block * (digits + 2):
        rest -= block * (digits + 2)
        count += block
        digits += 1
        block = 9 * 10 ** (digits - 1)
    return count + rest // (digits + 2)


def documents(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each of the concatenated documents starts and ends."""
    position, end = 0, len(data)
    unpack = _INT32.unpack_from
    while position < end:
        after = position + unpack(data, position)[0]
        yield position, after
        position = after
