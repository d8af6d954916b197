"""Coverage is what the runs of every replica set reach, and nothing more."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.wire.optime import OpTime
from agent.wire.timelines import Run, Span, coverage, intersection, merged, restorable

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
    found = restorable([span(0, 10), span(15, 20)], [at(4), at(7), at(12)])
    assert found == [(span(0, 10), at(4)), (span(15, 20), None)]
