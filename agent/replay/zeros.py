"""Empty timestamps, which the server does not store as they come.

`Timestamp(0, 0)` at the top level of a document that is inserted, or put in place of another,
becomes the time of the write; updates by fields store it as it is, so data may well hold it. After
such a document is written, an update by fields puts its empty timestamps back.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from agent.mongo.raw import elements

_TIMESTAMP: Final = 0x11
_EMPTY: Final = bytes(8)
_LOOKS_EMPTY: Final = re.compile(rb"\x11[^\x00]+\x00\x00{8}")
"""An element of that type and value; data may look the same, so a hit is a hint only."""
_length: Final = struct.Struct("<i").pack


def may_hold_empty(data: bytes, start: int, end: int) -> bool:
    """Whether there may be an empty timestamp at any level; quick."""
    return _LOOKS_EMPTY.search(data, start, end) is not None


def restoring(data: bytes, start: int) -> bytes | None:
    """The update that puts the empty timestamps of the document at `start` back, as the fields `o`
    and `o2` of an operation; None where it has none at its top level."""
    fields = identity = b""
    for element in elements(data, start):
        value = data[element.start : element.end]
        if element.name == b"_id":
            identity = bytes([element.kind]) + b"_id\0" + value
        elif element.kind == _TIMESTAMP and value == _EMPTY:
            fields += b"\x11" + element.name + b"\0" + _EMPTY
    if not fields:
        return None
    diff = _document(b"\x03u\0" + _document(fields))
    change = _document(b"\x10$v\0\x02\0\0\0" + b"\x03diff\0" + diff)
    return b"\x03o\0" + change + b"\x03o2\0" + _document(identity)


def _document(content: bytes) -> bytes:
    return _length(len(content) + 5) + content + b"\0"
