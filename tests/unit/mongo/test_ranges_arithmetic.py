"""How many documents make a range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.mongo.ranges import MAX_SKIP, documents_a_range

_TARGET = 32 << 20


@given(total=st.integers(0, 2**60), documents=st.integers(0, 2**40), target=st.integers(1, 1 << 30))
def test_a_range_has_at_least_one_document_and_bounded_many(
    total: int, documents: int, target: int
) -> None:
    assert 1 <= documents_a_range(total, documents, target) <= MAX_SKIP


@given(average=st.integers(1000, 16 << 20), documents=st.integers(1, 10**9))
def test_a_range_has_about_the_target_size(average: int, documents: int) -> None:
    count = documents_a_range(average * documents, documents, _TARGET)
    assert count == 1 or _TARGET * 0.5 <= count * average <= _TARGET


def test_unknown_sizes_make_large_ranges_but_bounded_ones() -> None:
    assert documents_a_range(0, 0, _TARGET) == MAX_SKIP
