"""Durations and sizes: read with or without a unit, printed with one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (30, 30), ("30", 30), ("30s", 30), ("1.5h", 5400), ("10m", 600), ("250ms", 0.25),
        ("2d", 172800), ("1w", 604800), (" 5 min ", 300), (0, 0), (0.5, 0.5),
    ],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1024, 1024), ("32MiB", 32 << 20), ("1.5GiB", 3 << 29), ("10MB", 10_000_000),
        ("512k", 512 << 10), ("1 TiB", 1 << 40), ("7B", 7), ("0", 0),
    ],
)  # fmt: skip
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "s", "-3s", -3, "3 parsecs", True, None, "1..2s", "nan"])
def test_what_is_neither_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"unit|not a|negative|is not"):
        parse_duration(text)
    with pytest.raises(ValueError, match=r"unit|not a|negative|is not"):
        parse_size(text)


@given(st.integers(0, 10**9))
def test_whole_seconds_survive_printing(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(1, 999))
def test_milliseconds_survive_printing(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds)


@given(st.integers(0, 1 << 50))
def test_sizes_survive_printing(size: int) -> None:
    assert parse_size(format_size(size)) == size
