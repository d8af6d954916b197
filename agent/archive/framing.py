"""The form of a stored object: a clear header, then zstd frames over plain concatenated BSON.

The header travels in a zstd *skippable frame* (RFC 8878 §3.1.2), which every zstd decoder passes
over: `zstd -d < object | bsondump` reads what Tidelog stored, and Tidelog learns from the object
alone what it is.

    skippable frame   magic 0x184D2A5D, little-endian length, JSON
    zstd frame …      each independent; the header's `frames` lists (stored, plain) sizes

`compression: none` keeps the form: its frames consist of raw blocks, which is valid zstd.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import IntegrityError

_SKIPPABLE: Final = 0x184D2A5D
_PREFIX: Final = struct.Struct("<II")
_FRAME_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_RAW_BLOCK: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One compressed frame and the size of what it holds."""

    stored: bytes
    plain_bytes: int


def assemble(header: dict[str, Any], frames: list[Frame]) -> list[bytes]:
    """The blocks of an object, in order; nothing is copied."""
    described = {**header, "frames": [[len(f.stored), f.plain_bytes] for f in frames]}
    text = json.dumps(described, separators=(",", ":")).encode()
    return [*skippable(text), *(f.stored for f in frames)]


def skippable(text: bytes) -> list[bytes]:
    """A header as a skippable frame."""
    return [_PREFIX.pack(_SKIPPABLE, len(text)), text]


def dissect(data: bytes, key: str) -> tuple[dict[str, Any], Iterator[tuple[memoryview, int]]]:
    """The header of an object and its frames as `(stored, plain size)`. Raises `IntegrityError`
    naming `key` when the form is not ours."""
    header = read_header(data, key)
    sizes: list[tuple[int, int]] = header["frames"]
    start = _PREFIX.size + _PREFIX.unpack_from(data)[1] + _before_frames(header, key)
    if start + sum(stored for stored, _ in sizes) != len(data):
        raise IntegrityError(f"{key} is not as long as its header says")
    return header, _cut(memoryview(data), start, sizes)


def read_header(data: bytes, key: str) -> dict[str, Any]:
    """The header alone, from the beginning of an object. Raises `IntegrityError`."""
    if len(data) < _PREFIX.size:
        raise IntegrityError(f"{key} is too short to be an object of Tidelog")
    magic, length = _PREFIX.unpack_from(data)
    if magic != _SKIPPABLE or _PREFIX.size + length > len(data):
        raise IntegrityError(f"{key} does not begin with a header of Tidelog")
    try:
        header: dict[str, Any] = json.loads(data[_PREFIX.size : _PREFIX.size + length])
        header["frames"] = [(int(stored), int(plain)) for stored, plain in header["frames"]]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise IntegrityError(f"the header of {key} cannot be read: {error}") from error
    return header


def _before_frames(header: dict[str, Any], key: str) -> int:
    """What lies between the header and the frames: nothing, unless an object is encrypted."""
    if "encryption" not in header:
        return 0
    try:
        described = header["encryption"]
        sizes = int(described["clear_bytes"]), int(described["private_bytes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise IntegrityError(f"the header of {key} cannot be read: {error!r}") from error
    if min(sizes) < 0:
        raise IntegrityError(f"the header of {key} gives sizes below nothing")
    return sum(sizes)


def clear_part(data: bytes, key: str) -> bytes:
    """What an encrypted object says in clear, after its header. Raises `IntegrityError`."""
    header, _ = dissect(data, key)
    start = _PREFIX.size + _PREFIX.unpack_from(data)[1]
    return data[start : start + int(header.get("encryption", {}).get("clear_bytes", 0))]


def _cut(
    data: memoryview, start: int, sizes: list[tuple[int, int]]
) -> Iterator[tuple[memoryview, int]]:
    for stored, plain in sizes:
        yield data[start : start + stored], plain
        start += stored


def raw_frame(plain: bytes) -> bytes:
    """A zstd frame that stores its content as it is (RFC 8878 §3.1.1.2.2, raw blocks)."""
    parts = [_FRAME_MAGIC, b"\xe0", struct.pack("<Q", len(plain))]
    starts = range(0, len(plain), _RAW_BLOCK) or range(1)
    for start in starts:
        block = plain[start : start + _RAW_BLOCK]
        is_last = start + _RAW_BLOCK >= len(plain)
        parts += [struct.pack("<I", len(block) << 3 | is_last)[:3], block]
    return b"".join(parts)
