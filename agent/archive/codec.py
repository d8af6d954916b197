"""Compression and digests, in worker threads: everything here that takes time releases the GIL.

One bounded pool serves the whole process, so that a backup beside PITR cannot use more cores than
the machine has, and its threads give way to whatever else wants a core. Blocks given to it should
be 1 MiB or more, else the hop costs more than the work.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, TypeVar

import zstandard

from agent.archive.framing import Frame, dissect, raw_frame
from agent.errors import IntegrityError

T = TypeVar("T")

DEFAULT_LEVEL: Final = 1

NICENESS: Final = 5
"""Where no core is to spare, mongod's threads and the agent's own loop go first; a third of a share
is left, so that slices of the oplog are not starved."""


def _give_way() -> None:
    # On Linux niceness belongs to a thread; elsewhere this would be another process's business.
    if sys.platform == "linux":
        with suppress(OSError):  # a sandbox may forbid even that
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


_pool = ThreadPoolExecutor(
    max_workers=max(2, os.cpu_count() or 2), thread_name_prefix="codec", initializer=_give_way
)
_local = threading.local()


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run CPU work in the codec's pool."""
    return await asyncio.get_running_loop().run_in_executor(_pool, partial(work, *args))


@dataclass(frozen=True, slots=True)
class Compression:
    """How blocks become frames."""

    kind: Literal["zstd", "none"] = "zstd"
    level: int = DEFAULT_LEVEL

    async def frame(self, plain: bytes) -> Frame:
        """One frame over a block of concatenated BSON."""
        return await in_thread(self.frame_of, plain)

    def frame_of(self, plain: bytes) -> Frame:
        """The same at once, for what is small."""
        if self.kind == "none":
            return Frame(raw_frame(plain), len(plain))
        return Frame(_compressor(self.level).compress(plain), len(plain))

    def __str__(self) -> str:
        return "none" if self.kind == "none" else f"zstd:{self.level}"


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One a thread and level: contexts are costly to make and not safe to share."""
    made: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in made:
        made[level] = zstandard.ZstdCompressor(level=level)
    return made[level]


def digest_of(blocks: list[bytes]) -> str:
    """SHA-256 of the concatenation, hexadecimal."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def open_object(data: bytes, key: str) -> tuple[dict[str, Any], list[bytes]]:
    """Header and plain frames of an object. Raises `IntegrityError`."""
    header, frames = dissect(data, key)
    return header, [expand(stored, size, key) for stored, size in frames]


def expand(stored: memoryview, size: int, key: str) -> bytes:
    """What one frame holds. Raises `IntegrityError` naming `key`."""
    try:
        # Asked first: what a harmed frame claims to hold would be allocated.
        claimed = zstandard.frame_content_size(stored)
        if claimed not in (size, -1):
            raise IntegrityError(f"a frame of {key} holds {claimed} bytes and not {size}")
        content = zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"a frame of {key} cannot be decompressed: {error}") from error
    if len(content) != size:
        raise IntegrityError(f"a frame of {key} holds {len(content)} bytes and not {size}")
    return content


def pack_json(text: bytes) -> bytes:
    """A JSON document as stored."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(text)


def unpack_json(data: bytes, key: str) -> bytes:
    """The reverse. Raises `IntegrityError`."""
    try:
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{key} cannot be decompressed: {error}") from error
