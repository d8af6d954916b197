"""CRC-64 as OSS computes it over every object (ECMA-182 reflected, known as CRC-64/XZ)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastcrc import crc64

_ZEROS: Final = bytes(1 << 20)


def crc64_of(body: bytes) -> int:
    """Of a whole body. Gigabytes a second, so it needs no thread."""
    return crc64.xz(body)


def crc64_joined(parts: Iterable[tuple[int, int]]) -> int:
    """Of parts one behind the other, each given as checksum and size in bytes.

    A CRC is linear: that of `ab` is that of `a` followed by zeros, changed where that of `b`
    differs from that of as many zeros.
    """
    joined = crc64.xz(b"")
    for checksum, size_bytes in parts:
        joined = _with_zeros(joined, size_bytes) ^ _with_zeros(crc64.xz(b""), size_bytes) ^ checksum
    return joined


def _with_zeros(checksum: int, size_bytes: int) -> int:
    while size_bytes:
        step = min(size_bytes, len(_ZEROS))
        checksum = crc64.xz(_ZEROS[:step] if step < len(_ZEROS) else _ZEROS, checksum)
        size_bytes -= step
    return checksum
