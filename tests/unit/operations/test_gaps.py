"""Planning what is left: whatever was finished, and however often, each document is read once."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.codec import Compression
from agent.archive.manifest import ChunkObject, CollectionEntry, Segment
from agent.operations.backup.journal import FinishedUnit
from agent.operations.backup.planning import PLANNER_BUDGET_BYTES, Remaining, gaps
from agent.operations.backup.reading import (
    UNIT_BUDGET_BYTES,
    Reader,
    Tally,
    Unit,
    decoded_bound,
    encoded_bound,
)
from agent.operations.backup.snapshot import PLANNERS, least_budget, planners_within
from agent.pipeline.budget import ByteBudget
from agent.wire.optime import OpTime
from tests.unit.operations.repositories import moment

UUID = "c0"
END = 1000
ENTRY = CollectionEntry(ns="db.c", uuid=UUID)
Interval = tuple[int, int]


def _bound(number: int) -> bytes | None:
    """Integers stand for bounds: 0 and `END` are the open ends."""
    return None if number in (0, END) else b"%d" % number


def _unit(interval: Interval, sequence: tuple[int, ...]) -> FinishedUnit:
    low, high = map(_bound, interval)
    return FinishedUnit(
        uuid=UUID, sequence=sequence, min=encoded_bound(low), max=encoded_bound(high)
    )


def _interval(low: bytes | None, high: bytes | None) -> Interval:
    return (0 if low is None else int(low), END if high is None else int(high))


def _interval_of(unit: FinishedUnit) -> Interval:
    return _interval(decoded_bound(unit.min), decoded_bound(unit.max))


def _covered(intervals: list[Interval]) -> list[Interval]:
    """Sorted and merged; overlapping ones are an error."""
    merged: list[Interval] = []
    for low, high in sorted(intervals):
        assert low < high
        assert not merged or merged[-1][1] <= low, "a range is read twice"
        if merged and merged[-1][1] == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return merged


def _cut(interval: Interval, rng: random.Random) -> list[Interval]:
    """A gap as the planner cuts it, with other boundaries each time."""
    low, high = interval
    inner = rng.sample(range(low + 1, high), min(rng.randrange(5), high - low - 1))
    return list(pairwise([low, *sorted(inner), high]))


@settings(max_examples=300)
@given(seed=st.integers(0, 10**9), share=st.floats(0.0, 1.0), resumes=st.integers(1, 7))
def test_resuming_again_and_again_reads_exactly_what_is_missing(
    seed: int, share: float, resumes: int
) -> None:
    rng = random.Random(seed)
    finished: list[FinishedUnit] = []
    for _ in range(resumes):
        remaining = Remaining.after(finished)
        in_order = remaining.ranges.get(UUID, [])
        assert [_interval_of(unit) for unit in in_order] == sorted(map(_interval_of, finished))
        found = list(gaps(in_order))
        holes = [_interval(gap.minimum, gap.maximum) for gap in found]
        assert holes == _complement(_covered([_interval_of(unit) for unit in finished]))
        planned = [
            _unit(interval, (*gap.prefix, number))
            for gap, hole in zip(found, holes, strict=True)
            for number, interval in enumerate(_cut(hole, rng))
        ]
        rng.shuffle(planned)
        finished += [unit for unit in planned if rng.random() < share]
    final = gaps(Remaining.after(finished).ranges.get(UUID, []))
    everything = [_interval_of(unit) for unit in finished]
    everything += [_interval(gap.minimum, gap.maximum) for gap in final]
    assert _covered(everything) == [(0, END)]


def _complement(covered: list[Interval]) -> list[Interval]:
    edges = [0, *(edge for interval in covered for edge in interval), END]
    return [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if low < high]


def test_a_gap_that_is_cut_finer_the_second_time_keeps_its_place() -> None:
    finished = [_unit((500, END), (-1, 1)), _unit((250, 500), (-1, 0, 1))]
    (gap,) = gaps(Remaining.after(finished).ranges[UUID])
    assert _interval(gap.minimum, gap.maximum) == (0, 250)
    assert all((*gap.prefix, number) < (-1, 0, 1) for number in range(1000))


def test_a_collection_in_one_piece_leaves_no_gap() -> None:
    assert list(gaps([_unit((0, END), (-1, 0))])) == []


def test_nothing_finished_is_one_gap_of_everything() -> None:
    (gap,) = gaps([])
    assert (gap.minimum, gap.maximum) == (None, None)


def test_collections_in_bundles_are_told_from_ranges() -> None:
    segments = tuple(
        Segment(uuid=uuid, length=5, count=1, read_at=moment(1)) for uuid in ("a", "b")
    )
    stored = ChunkObject(key="k", size_bytes=1, sha256="0", plain_bytes=10, segments=segments)
    empty = _unit((0, 10), (-1, 0))
    found = Remaining.after([FinishedUnit(objects=(stored,)), empty])
    assert found.bundled == {"a", "b"}
    assert found.ranges == {UUID: [empty]}


@pytest.mark.parametrize("megabytes", [1, 64, 96, 128, 143, 144, 256, 1024])
def test_planners_never_hold_so_much_that_no_reader_can_go_on(megabytes: int) -> None:
    wanted = megabytes << 20
    planning = planners_within(wanted)
    total = max(wanted, least_budget(planning))
    assert 1 <= planning <= PLANNERS
    assert total - planning * PLANNER_BUDGET_BYTES >= UNIT_BUDGET_BYTES
    assert total <= max(wanted, PLANNER_BUDGET_BYTES + UNIT_BUDGET_BYTES)


async def test_the_least_budget_lets_a_reader_in_while_planners_hold_their_share() -> None:
    budget = ByteBudget(least_budget(1))
    async with budget.take(PLANNER_BUDGET_BYTES), budget.take(UNIT_BUDGET_BYTES):
        assert budget.free_bytes == 0


@pytest.mark.parametrize("whole_bytes", [0, 1 << 30], ids=["range", "stream"])
async def test_units_of_the_largest_documents_take_more_and_never_what_planners_hold(
    whole_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []

    async def read(*_: Any) -> list[ChunkObject]:
        free.append(budget.free_bytes)
        return []

    async def now() -> OpTime:
        return moment(1)

    for name in ("_read", "_stream"):
        monkeypatch.setattr(Reader, name, read)
    small, large = (
        Unit(ENTRY, (0,), document_bytes=size, whole_bytes=whole_bytes) for size in (512, 16 << 20)
    )
    assert large.budget_bytes == 2 * small.budget_bytes
    held = 2 * PLANNER_BUDGET_BYTES
    budget = ByteBudget(held + small.budget_bytes)
    reader = Reader(
        cast(Any, None),
        cast(Any, None),
        compression=Compression(),
        budget=budget,
        read_clock=cast(Any, SimpleNamespace(now=now)),
        tally=Tally(),
        planners_bytes=held,
    )
    async with asyncio.timeout(5), budget.take(held):
        await reader.read_unit(large)
    assert free == [0], "it waits for no planner, who would wait for it"
