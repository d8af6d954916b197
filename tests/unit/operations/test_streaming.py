"""Collections that are read whole: how their batches become objects, and which they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.framing import Frame
from agent.archive.manifest import ChunkObject
from agent.errors import StorageUnavailable
from agent.mongo.raw import CursorReply
from agent.operations.backup.moments import WHOLE_S
from agent.operations.backup.planning import Lanes
from agent.operations.backup.reading import WHOLE_BYTES
from agent.operations.backup.streaming import AHEAD, Stream


async def _batches(sizes: list[int]) -> AsyncIterator[CursorReply]:
    for number, size in enumerate(sizes):
        more = int(number < len(sizes) - 1)
        yield CursorReply(bytes([number]) * size, size, cursor_id=more, at_cluster_time=None)


class _Scene:
    """Compresses at a pace of its own for each batch, and stores."""

    def __init__(self, *, object_bytes: int, pauses: list[int] | None = None) -> None:
        self.stream = Stream(self._compress, self._store, object_bytes=object_bytes)
        self.stored: list[tuple[bytes, int]] = []
        self.fails = False
        self.compressing = self.most = self.storing = self.most_stored = 0
        self._pauses = pauses or [0]
        self._begun = 0

    async def _compress(self, documents: bytes) -> Frame:
        self.compressing += 1
        self.most = max(self.most, self.compressing)
        self._begun += 1
        for _ in range(self._pauses[self._begun % len(self._pauses)]):
            await asyncio.sleep(0)
        self.compressing -= 1
        return Frame(documents, len(documents))

    async def _store(self, frames: list[Frame], documents: int) -> ChunkObject:
        self.storing += 1
        self.most_stored = max(self.most_stored, self.storing)
        await asyncio.sleep(0)
        if self.fails:
            raise StorageUnavailable("gone")
        content = b"".join(frame.stored for frame in frames)
        self.stored.append((content, documents))
        self.storing -= 1
        return ChunkObject(
            key=str(len(self.stored)), size_bytes=1, sha256="", plain_bytes=1, segments=()
        )


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), max_size=20),
    object_bytes=st.integers(1, 25),
    pauses=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
async def test_objects_hold_every_batch_in_order_and_little_is_held_at_once(
    sizes: list[int], object_bytes: int, pauses: list[int]
) -> None:
    scene = _Scene(object_bytes=object_bytes, pauses=pauses)
    objects = await scene.stream.run(_batches(sizes))
    whole = b"".join(bytes([number]) * size for number, size in enumerate(sizes))
    assert b"".join(content for content, _ in scene.stored) == whole
    assert all(len(content) == documents > 0 for content, documents in scene.stored)
    assert all(object_bytes <= len(content) < object_bytes + 9 for content, _ in scene.stored[:-1])
    assert [item.key for item in objects] == [str(n + 1) for n in range(len(scene.stored))]
    assert scene.most <= AHEAD
    assert scene.most_stored <= 1


async def test_a_storage_that_fails_ends_the_stream_with_its_own_error() -> None:
    scene = _Scene(object_bytes=1)
    scene.fails = True
    with pytest.raises(StorageUnavailable, match="gone"):
        await scene.stream.run(_batches([1] * 50))
    assert scene.compressing == 0
    assert scene.stored == []


def _lanes(total_bytes: int, *, pace_s: float = 0.0, readers: int = 3) -> Lanes:
    async def total() -> int:
        return total_bytes

    return Lanes(total, lambda _: pace_s, readers)


@pytest.mark.parametrize(
    ("cores", "share", "expected"),
    [
        (2, 1.0, True),  # one stream keeps them busy
        (5, 1.0, True),
        (6, 1.0, False),
        (6, 0.5, True),
        (64, 0.5, False),  # three readers
        (64, 0.33, True),
    ],
)
async def test_a_collection_is_read_whole_where_others_keep_the_other_readers_busy(
    monkeypatch: pytest.MonkeyPatch, cores: int, share: float, expected: bool
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    total = 120 << 20
    assert await _lanes(total).fit(int(total * share)) is expected


async def test_nothing_is_read_whole_of_which_an_agent_could_lose_more_than_seconds() -> None:
    assert await _lanes(1 << 40).fit(WHOLE_BYTES)
    assert not await _lanes(1 << 40).fit(WHOLE_BYTES + 1)
    assert await _lanes(1 << 40, pace_s=WHOLE_S).fit(1 << 20)
    assert not await _lanes(1 << 40, pace_s=WHOLE_S + 1).fit(1 << 20)
