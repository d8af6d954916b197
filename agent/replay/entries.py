"""Oplog entries, looked at without decoding them.

An entry is a BSON document of a known shape: `[lsid, txnNumber,] op, ns, ui, o, [o2,] …, ts, …`.
Its few leading fields are found at computed places, which costs a microsecond or two where decoding
costs twenty; an entry of any other shape is walked field by field. The operations inside a
transaction look the same, without `ts`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from agent.errors import IntegrityError
from agent.mongo.bsonkey import NUMBER, Key, value_key
from agent.mongo.raw import elements

RAW: Final = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_MS
)

INSERT: Final = ord("i")
UPDATE: Final = ord("u")
DELETE: Final = ord("d")
COMMAND: Final = ord("c")
NOOP: Final = ord("n")

_length_at = struct.Struct("<i").unpack_from
_uint64_at = struct.Struct("<Q").unpack_from
_int64_at = struct.Struct("<q").unpack_from

_OP: Final = b"\x02op\0\x02\0\0\0"
_NS: Final = b"\0\x02ns\0"
_UI: Final = b"\x05ui\0\x10\0\0\0\x04"
_O: Final = b"\x03o\0"
_O2: Final = b"\x03o2\0"
_TS: Final = b"\x11ts\0"
_LSID: Final = b"\x03lsid\0"
_TXN_NUMBER: Final = b"\x12txnNumber\0"
_ID: Final = b"_id\0"
_STATEMENT: Final = b"\x10stmtId\0"
_DOCUMENT: Final = 0x03

NO_UUID: Final = b""


class Entry:
    """One entry or inner operation: where its parts lie in `data`.

    `body_at` to `end_at` covers `o` and `o2`, which is all that `applyOps` needs beside the prefix.
    """

    __slots__ = (
        "body_at",
        "data",
        "document_at",
        "end_at",
        "ns",
        "o2_at",
        "o_at",
        "op",
        "ts",
        "ui",
    )

    def __init__(
        self,
        data: bytes,
        document_at: int,
        op: int,
        ns: bytes,
        ui: bytes,
        body_at: int,
        o_at: int,
        o2_at: int,
        end_at: int,
        ts: int,
    ) -> None:
        self.data = data
        self.document_at = document_at
        self.op = op
        self.ns = ns
        self.ui = ui
        """16 bytes, or `NO_UUID`."""
        self.body_at = body_at
        self.o_at = o_at
        self.o2_at = o2_at
        """-1 where there is none."""
        self.end_at = end_at
        self.ts = ts
        """The packed OpTime; 0 for operations inside a transaction."""

    def command(self) -> RawBSONDocument:
        """The field `o`, decoded as far as it is looked into."""
        start = self.o_at
        return RawBSONDocument(self.data[start : start + _length_at(self.data, start)[0]], RAW)

    @property
    def body(self) -> bytes:
        """The elements `o` and `o2`, as they stand in the entry."""
        return self.data[self.body_at : self.end_at]


def entries(data: bytes) -> Iterator[Entry]:
    """The entries of a slice's plain bytes, or of any concatenation of them."""
    position, end = 0, len(data)
    while position < end:
        yield scan(data, position)
        position += _length_at(data, position)[0]


def inner_operations(data: bytes, array_at: int) -> Iterator[Entry]:
    """The operations of an `applyOps` array that begins at `array_at`."""
    end = array_at + _length_at(data, array_at)[0] - 1
    position = array_at + 4
    while position < end:
        value = data.index(b"\0", position + 1) + 1
        yield scan(data, value)
        position = value + _length_at(data, value)[0]


def count_operations(array: bytes) -> int:
    """How many operations an `applyOps` array holds."""
    count, position, end = 0, 4, len(array) - 1
    while position < end:
        value = array.index(b"\0", position + 1) + 1
        position = value + _length_at(array, value)[0]
        count += 1
    return count


def command_name(entry: Entry) -> bytes:
    """The name of the command that a `c` entry holds."""
    start = entry.o_at + 5
    return entry.data[start : entry.data.index(b"\0", start)]


def scan(data: bytes, start: int) -> Entry:
    """The entry that begins at `start`."""
    position = start + 4
    if data[position : position + 6] == _LSID:
        position += 6 + _length_at(data, position + 6)[0]
        if data[position : position + 11] == _TXN_NUMBER:
            position += 19
    if data[position : position + 8] != _OP or data[position + 9 : position + 14] != _NS:
        return _walk(data, start)
    op = data[position + 8]
    size = _length_at(data, position + 14)[0]
    ns = data[position + 18 : position + 17 + size]
    position += 18 + size
    if data[position : position + 9] != _UI:
        return _walk(data, start)
    ui = data[position + 9 : position + 25]
    body_at = position + 25
    if data[body_at : body_at + 3] != _O:
        return _walk(data, start)
    o_at, o2_at = body_at + 3, -1
    end = position = o_at + _length_at(data, o_at)[0]
    if data[position : position + 4] == _O2:
        o2_at = position + 4
        end = position = o2_at + _length_at(data, o2_at)[0]
    elif op == UPDATE:
        return _walk(data, start)
    if data[position : position + 8] == _STATEMENT:
        position += 12
    if data[position : position + 4] == _TS:
        ts = _uint64_at(data, position + 4)[0]
    elif data[position] == 0:
        ts = 0  # the end: an operation inside a transaction
    else:
        return _walk(data, start)
    return Entry(data, start, op, ns, ui, body_at, o_at, o2_at, end, ts)


def _walk(data: bytes, start: int) -> Entry:
    """An entry of another shape, field by field. Where the two documents of a write do not adjoin,
    they are put together in a copy."""
    found = {element.name: element for element in elements(data, start)}
    if b"op" not in found or b"ns" not in found or b"o" not in found:
        raise IntegrityError("an oplog entry lacks one of the fields op, ns and o")
    o, ns = found[b"o"], found[b"ns"]
    op = data[found[b"op"].start + 4]
    ui, ts, o2 = found.get(b"ui"), found.get(b"ts"), found.get(b"o2")
    named = (
        op,
        data[ns.start + 4 : ns.end - 1],
        NO_UUID if ui is None else data[ui.start + 5 : ui.end],
    )
    moment = 0 if ts is None else int(_uint64_at(data, ts.start)[0])
    if op in (COMMAND, NOOP) or o2 is None or o2.kind != _DOCUMENT:
        return Entry(data, start, *named, o.start - len(_O), o.start, -1, o.end, moment)
    body = _O + data[o.start : o.end] + _O2 + data[o2.start : o2.end]
    o2_at = len(_O) + o.end - o.start + len(_O2)
    return Entry(body, 0, *named, 0, len(_O), o2_at, len(body), moment)


def _holder(entry: Entry) -> int:
    """Where the document lies that holds the `_id`: `o2`, or `o` of a delete or of an insert
    without `o2`."""
    return entry.o_at if entry.o2_at < 0 or entry.op == DELETE else entry.o2_at


def _id_at(entry: Entry) -> tuple[int, int]:
    """Type of the `_id`, and where its value begins."""
    data, at = entry.data, _holder(entry)
    if data[at + 5 : at + 9] == _ID:
        return data[at + 4], at + 9
    for element in elements(data, at):
        if element.name == b"_id":
            return element.kind, element.start
    raise IntegrityError(f"an oplog entry on {entry.ns.decode(errors='replace')} has no _id")


def id_hash(entry: Entry) -> int:
    """A number that is the same for all values of `_id` that the `_id` index holds equal."""
    kind, at = _id_at(entry)
    data = entry.data
    if kind == 0x07:
        return hash(data[at : at + 12])
    if kind == 0x10:
        return hash(_length_at(data, at)[0])
    if kind == 0x12:
        return hash(_int64_at(data, at)[0])
    if kind in (0x02, 0x0E):
        return hash(data[at + 4 : at + 3 + _length_at(data, at)[0]])
    if kind == 0x05:
        return hash(data[at : at + 5 + _length_at(data, at)[0]])
    key = id_key(entry)
    return hash(key[2] if key[0] == NUMBER and len(key) == 3 else key)


def id_key(entry: Entry) -> Key:
    """The `_id` as a key in the server's order."""
    kind, at = _id_at(entry)
    for element in elements(entry.data, _holder(entry)):
        if element.start == at:
            return value_key(kind, entry.data[at : element.end])
    raise IntegrityError("the _id of an oplog entry cannot be read")


def id_document(entry: Entry) -> RawBSONDocument:
    """The document that holds the `_id`, for messages."""
    at = _holder(entry)
    return RawBSONDocument(entry.data[at : at + _length_at(entry.data, at)[0]], RAW)
