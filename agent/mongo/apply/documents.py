"""Raw documents on their way to the server."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_length_at = struct.Struct("<i").unpack_from

MAX_DOCUMENTS: Final = 10_000
MAX_BYTES: Final = 8 << 20
"""Of one command's documents. The server takes 16 MiB and a little, or one document of any size."""


class RawDocument:
    """What the driver's encoder copies into a command as it is. Of the driver's own class for this
    it asks only the two attributes; making one of those costs twice as much."""

    __slots__ = ("raw",)
    _type_marker = 101

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def cut(
    data: bytes, max_documents: int = MAX_DOCUMENTS, max_bytes: int = MAX_BYTES
) -> Iterator[list[RawDocument]]:
    """Concatenated documents, as batches of which each fits into one command."""
    batch: list[RawDocument] = []
    begun, position, end = 0, 0, len(data)
    while position < end:
        after = position + _length_at(data, position)[0]
        if batch and (len(batch) >= max_documents or after - begun > max_bytes):
            yield batch
            batch, begun = [], position
        batch.append(RawDocument(data[position:after]))
        position = after
    if batch:
        yield batch
