"""Coverage is what the runs of every replica set reach, and nothing more."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.wire.optime import OpTime
from agent.wire.timelines import (
    Base,
    Run,
    Span,
    coverage,
    intersection,
    merged,
    restorable,
    without,
)

LAST = 30


def at(second: int) -> OpTime:
    """A moment."""
    return OpTime(T=second, I=1)


def span(start: int, end: int) -> Span:
    """`(start, end]`."""
    return Span(start=at(start), end=at(end))


def run(replset: str, start: int, end: int, until: int | None = None) -> Run:
    """A run with slices to `end`, and nothing worth one to `until`."""
    return Run(
        id=f"{replset}/{start}",
        replset=replset,
        start=at(start),
        end=at(end),
        covered_until=at(until if until is not None else end),
        epoch=1,
    )


spans = st.lists(
    st.tuples(st.integers(0, LAST), st.integers(0, LAST)).map(lambda p: span(min(p), max(p))),
    max_size=6,
)


def moments(found: list[Span]) -> set[int]:
    """Every second that is covered."""
    return {s for s in range(LAST + 2) if any(at(s) in one for one in found)}


@given(spans)
def test_merging_neither_loses_nor_adds_a_moment(found: list[Span]) -> None:
    joined = merged(found)
    assert moments(joined) == moments(found)
    assert all(a.end < b.start for a, b in pairwise(joined))


@given(spans, spans)
def test_an_intersection_holds_what_both_hold(first: list[Span], second: list[Span]) -> None:
    both = intersection(merged(first), merged(second))
    assert moments(both) == moments(first) & moments(second)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, LAST), st.integers(0, LAST))))
def test_coverage_is_what_every_replica_set_with_runs_covers(
    found: list[tuple[str, int, int]],
) -> None:
    runs = [run(name, min(a, b), max(a, b)) for name, a, b in found]
    each = [moments([r.span for r in runs if r.replset == n]) for n in {r.replset for r in runs}]
    assert moments(coverage(runs)) == (set.intersection(*each) if each else set())


def test_one_replica_set_that_is_behind_holds_the_coverage_back() -> None:
    assert coverage([run("a", 0, 20), run("b", 5, 12)]) == [span(5, 12)]


def test_an_idle_replica_set_is_covered_past_its_last_slice() -> None:
    assert coverage([run("a", 0, 10, until=25)]) == [span(0, 25)]


def test_a_start_is_not_covered_and_an_end_is() -> None:
    assert at(3) not in span(3, 5)
    assert at(5) in span(3, 5)


def test_a_span_restores_from_its_first_base_on() -> None:
    runs = [run("a", 0, 10), run("a", 15, 20)]
    assert restorable(runs, [Base(at(t), ("a",)) for t in (4, 7, 12)]) == [span(4, 10)]


def test_a_base_restores_as_far_as_each_replica_set_that_it_holds_is_covered() -> None:
    runs = [run("cfg", 0, 30), run("a", 0, 20), run("b", 0, 10), run("new", 15, 30)]
    everything = Base(at(5), ("cfg", "a", "b"))
    assert restorable(runs, [everything]) == [span(5, 10)]
    assert restorable(runs, [Base(at(5), ("cfg", "a"))]) == [span(5, 20)]
    assert restorable(runs, [Base(at(5), ("cfg", "a", "c"))]) == []
    after = Base(at(16), ("cfg", "a", "new"))
    assert restorable(runs, [everything, after]) == [span(5, 10), span(16, 20)]


def test_a_replica_set_of_which_nothing_is_archived_leaves_nothing_covered() -> None:
    assert coverage([run("a", 0, 20)], ["a", "b"]) == []
    assert coverage([run("a", 0, 20), run("gone", 0, 3)], ["a"]) == [span(0, 20)]


@given(
    st.lists(st.tuples(st.integers(0, LAST), st.integers(0, LAST))),
    st.lists(st.tuples(st.integers(0, LAST), st.integers(0, LAST))),
)
def test_what_is_left_of_spans_is_in_them_and_in_no_hole(
    kept: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> None:
    spans = merged(span(min(s), max(s)) for s in kept)
    holes = merged(span(min(s), max(s)) for s in taken)
    assert moments(without(spans, holes)) == moments(spans) - moments(holes)
