"""Reading chunks and slices back, proven by their digests before a byte is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from agent.archive.manifest import ChunkObject, Segment, SliceRef
from agent.archive.objects import fetch, plain_frames
from agent.errors import IntegrityError
from agent.storage.base import Storage


async def frames(storage: Storage, item: ChunkObject | SliceRef) -> AsyncIterator[bytes]:
    """The plain frames of an object, one at a time. Raises `IntegrityError`."""
    data = await fetch(storage, item.key, size_bytes=item.size_bytes, sha256=item.sha256)
    async for frame in plain_frames(storage, data, item.key):
        yield frame


async def pieces(
    storage: Storage, item: ChunkObject, wanted: Sequence[Segment]
) -> AsyncIterator[tuple[Segment, bytes]]:
    """The documents of the wanted segments (ascending by offset), piece by piece."""
    position = 0
    remaining = list(wanted)
    async for frame in frames(storage, item):
        end = position + len(frame)
        while remaining and remaining[0].offset < end:
            segment = remaining[0]
            start = max(segment.offset, position)
            stop = min(segment.offset + segment.length, end)
            if start < stop:
                yield segment, frame[start - position : stop - position]
            if segment.offset + segment.length > end:
                break
            remaining.pop(0)
        position = end
    if any(segment.length for segment in remaining):
        raise IntegrityError(f"{item.key} is shorter than the manifest says")


async def slice_entries(storage: Storage, item: SliceRef) -> list[bytes]:
    """All frames of a slice."""
    return [frame async for frame in frames(storage, item)]
