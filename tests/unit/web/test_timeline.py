"""The timeline: everything lies where it belongs, and inside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.web.timeline import MAX_TICKS, timeline
from tests.support.overviews import DAY, NOW_T, a_backup, a_run, good, holed


def test_the_hole_is_where_nothing_is_archived() -> None:
    found = timeline(holed())
    rows = {row.name: row for row in found.rows}
    (gap,) = rows["shard-b"].gaps
    before, after = rows["shard-b"].bars
    assert before.left + before.width <= gap.left + 0.01
    assert gap.left + gap.width >= after.left - 0.01
    assert rows["shard-a"].gaps == ()
    assert len(rows["Restorable"].bars) == 2


def test_marks_tell_backups_failures_and_restores_apart() -> None:
    kinds = [mark.kind for mark in timeline(holed()).marks]
    assert (kinds.count("backup"), kinds.count("failed"), kinds.count("restore")) == (13, 1, 1)


@given(
    start=st.floats(1, 400 * DAY), length=st.floats(0, 1), backups=st.lists(st.floats(0, 90 * DAY))
)
def test_nothing_lies_outside(start: float, length: float, backups: list[float]) -> None:
    overview = good(
        runs=(a_run("config", start, start * (1 - length)),),
        backups=tuple(a_backup(one) for one in backups),
    )
    found = timeline(overview)
    assert found.end == NOW_T
    assert len(found.ticks) <= MAX_TICKS + 1
    for row in found.rows:
        for bar in (*row.bars, *row.gaps):
            assert bar.left >= 0
            assert bar.width > 0
            assert bar.left + bar.width <= 100.001
    assert all(0 <= mark.at <= 100 for mark in (*found.marks, *found.ticks))
