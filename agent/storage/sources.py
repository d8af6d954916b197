"""Sources for `put` that can be read more than once, so that a failed `put` can be tried again.

A stream is gone once it was read. Where a caller can produce the same bytes again, it hands over
the *factory* of the stream: `storage.put(key, Replayable(factory))`. A `Replayable` is an ordinary
source to a driver; the retrying wrapper knows it and takes a fresh stream for each attempt.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self


class Replayable:
    """A source that starts again: each `again()` is a fresh stream of the same bytes."""

    def __init__(self, factory: Callable[[], AsyncIterator[bytes]]) -> None:
        self._factory = factory
        self._stream: AsyncIterator[bytes] | None = None

    def again(self) -> AsyncIterator[bytes]:
        """A stream from the first byte on, independent of all others."""
        return self._factory()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._stream is None:
            self._stream = self._factory()
        return await anext(self._stream)


def replayed(blocks: Sequence[bytes]) -> Replayable:
    """Blocks in memory as a source that starts again."""

    async def each() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    return Replayable(each)


def source_of(data: bytes) -> Replayable:
    """Bytes in memory as a source that starts again."""

    async def once() -> AsyncIterator[bytes]:
        yield data

    return Replayable(once)
