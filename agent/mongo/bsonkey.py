"""The server's order of BSON values, as Python keys that compare, and hash, the same way.

Two values that one unique index cannot hold both (`1`, `1.0` and `NumberLong(1)`, or a symbol and
the string of the same text) have equal keys; any others sort as `{_id: 1}` sorts them. Strings are
compared by their bytes: a collection with a collation of its own has another order, which only the
server knows, so never ask here for one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from bson import Decimal128

from agent.errors import IntegrityError
from agent.mongo.raw import elements

Key = tuple[Any, ...]

_DOUBLE: Final = struct.Struct("<d")
_INT32: Final = struct.Struct("<i")
_INT64: Final = struct.Struct("<q")
_UINT64: Final = struct.Struct("<Q")

NUMBER: Final = 10
"""The first part of the key of every number; the third is its value, but for NaN."""
_NAN: Final[Key] = (NUMBER, 0)
"""Sorts below every other number, and equals itself."""


def id_key(document: bytes) -> Key:
    """The key of the `_id` of a document that has one, e.g. of a chunk's bound."""
    for element in elements(document):
        if element.name == b"_id":
            return value_key(element.kind, document[element.start : element.end])
    raise IntegrityError("a document without an _id stands where one is needed")


def value_key(kind: int, value: bytes) -> Key:
    """The key of one value: its BSON type byte and its bytes without the field name."""
    make = _MAKERS.get(kind)
    if make is None:
        raise IntegrityError(f"an _id has the unknown BSON type 0x{kind:02x}")
    return make(value)


def _number(number: Any) -> Key:
    # Python compares and hashes int, float and Decimal by their exact values, as the server does.
    return _NAN if number != number else (NUMBER, 1, number)


def _double(value: bytes) -> Key:
    return _number(_DOUBLE.unpack(value)[0])


def _decimal(value: bytes) -> Key:
    decimal = Decimal128.from_bid(value).to_decimal()
    return _NAN if decimal.is_nan() else (NUMBER, 1, decimal)


def _string(value: bytes) -> Key:
    return (15, value[4:-1])


def _document(value: bytes) -> Key:
    # Field by field: first the type, then the name, then the value; a prefix sorts first.
    fields = []
    for element in elements(value):
        key = value_key(element.kind, value[element.start : element.end])
        fields.append((key[0], element.name, key))
    return (20, *fields)


def _array(value: bytes) -> Key:
    return (25, *(value_key(e.kind, value[e.start : e.end]) for e in elements(value)))


def _binary(value: bytes) -> Key:
    return (30, len(value), value[4], value[5:])


def _regex(value: bytes) -> Key:
    pattern, options, _ = value.split(b"\0")
    return (50, pattern, options)


def _pointer(value: bytes) -> Key:
    return (55, len(value), value[4:])


def _scoped_code(value: bytes) -> Key:
    length = _INT32.unpack_from(value, 4)[0]
    return (65, value[8 : 8 + length - 1], _document(value[8 + length :]))


_MAKERS: Final[dict[int, Callable[[bytes], Key]]] = {
    0xFF: lambda value: (-1,),
    0x06: lambda value: (0,),
    0x0A: lambda value: (5,),
    0x01: _double,
    0x10: lambda value: (NUMBER, 1, _INT32.unpack(value)[0]),
    0x12: lambda value: (NUMBER, 1, _INT64.unpack(value)[0]),
    0x13: _decimal,
    0x02: _string,
    0x0E: _string,
    0x03: _document,
    0x04: _array,
    0x05: _binary,
    0x07: lambda value: (35, value),
    0x08: lambda value: (40, value),
    0x09: lambda value: (45, _INT64.unpack(value)[0]),
    0x11: lambda value: (47, _UINT64.unpack(value)[0]),
    0x0B: _regex,
    0x0C: _pointer,
    0x0D: lambda value: (60, value[4:-1]),
    0x0F: _scoped_code,
    0x7F: lambda value: (127,),
}
