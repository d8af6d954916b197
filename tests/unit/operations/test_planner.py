"""Which collections are asked for together."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agent.archive.manifest import CollectionEntry, Segment
from agent.operations.backup.planning import PLANNER_BUDGET_BYTES, Planner, Remaining
from agent.operations.backup.reading import SmallCollection
from agent.pipeline.budget import ByteBudget
from agent.pipeline.channel import Channel
from agent.wire.optime import OpTime


class Reader:
    """Every collection is tiny."""

    def __init__(self) -> None:
        self.together: list[list[str]] = []
        self.alone: list[str] = []

    async def read_tiny(self, entries: Sequence[CollectionEntry]) -> dict[str, SmallCollection]:
        self.together.append([entry.uuid for entry in entries])
        return {entry.uuid: _small(entry) for entry in entries}

    async def read_small(self, entry: CollectionEntry) -> SmallCollection:
        self.alone.append(entry.uuid)
        return _small(entry)

    async def store_bundle(self, *_: Any) -> Any:
        return None


def _small(entry: CollectionEntry) -> SmallCollection:
    return SmallCollection(
        Segment(uuid=entry.uuid, length=0, count=1, read_at=OpTime(T=1, I=1)), []
    )


async def test_what_was_begun_in_ranges_is_not_asked_for_with_the_tiny_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[str] = []

    async def send(_: Planner, entry: CollectionEntry) -> None:
        sent.append(entry.uuid)

    async def finished(_: Any) -> None:
        return None

    monkeypatch.setattr(Planner, "_send", send)
    reader: Any = Reader()
    nothing: Any = SimpleNamespace()
    planner = Planner(
        nothing,
        reader,
        ranges=nothing,
        lanes=None,
        budget=ByteBudget(PLANNER_BUDGET_BYTES),
        remaining=Remaining(bundled={"b"}, ranges={"e": []}),
        units=Channel(1),
        on_finished=finished,
        on_gone=lambda _: None,
    )
    await planner.run(CollectionEntry(ns=f"db.{uuid}", uuid=uuid) for uuid in "abcdefghi")
    assert reader.alone == ["a", "i"]  # the first, and what follows one that is not tiny
    assert reader.together == [["c", "d"], ["f", "g", "h"]]
    assert sent == ["e"]
