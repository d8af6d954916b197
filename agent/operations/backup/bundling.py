"""Small collections on their way into one object, so that thousands of them cost few."""

from __future__ import annotations

from typing import Final

from agent.archive.framing import Frame
from agent.archive.manifest import ChunkObject, Segment
from agent.operations.backup.reading import BATCH_BYTES, CHUNK_BYTES, Reader, SmallCollection

BUNDLE_SEGMENTS: Final = 4096


class Bundle:
    """One object in the making, compressed as its collections come."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._segments: list[Segment] = []
        self._frames: list[Frame] = []
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._plain_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to store it."""
        return self._plain_bytes >= CHUNK_BYTES or len(self._segments) >= BUNDLE_SEGMENTS

    async def add(self, small: SmallCollection) -> None:
        """Take a collection in."""
        self._segments.append(small.segment.model_copy(update={"offset": self._plain_bytes}))
        self._plain_bytes += small.segment.length
        self._pending += small.blocks
        self._pending_bytes += small.segment.length
        if self._pending_bytes >= BATCH_BYTES:
            await self._flush()

    async def store(self) -> ChunkObject | None:
        """Store what was taken in, and begin anew; None where nothing was."""
        await self._flush()
        segments, frames = self._segments, self._frames
        self._segments, self._frames, self._plain_bytes = [], [], 0
        return await self._reader.store_bundle(segments, frames) if segments else None

    async def _flush(self) -> None:
        if self._pending_bytes:
            self._frames.append(await self._reader.compressed(self._pending))
        self._pending, self._pending_bytes = [], 0
