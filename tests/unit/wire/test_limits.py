"""When which rates hold."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.wire.limits import DAYS, Limits, Rates, Window

SLOW, FAST = Rates(read_bytes_per_s=10), Rates(read_bytes_per_s=1000)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def window(start: str, end: str, **given: object) -> Window:
    return Window.model_validate({"start": start, "end": end, "rates": FAST, **given})


@pytest.mark.parametrize(
    ("start", "end", "at", "holds"),
    [
        ("08:00", "18:00", "08:00", True),
        ("08:00", "18:00", "17:59", True),
        ("08:00", "18:00", "18:00", False),
        ("22:00", "06:00", "23:30", True),
        ("22:00", "06:00", "05:59", True),
        ("22:00", "06:00", "06:00", False),
        ("22:00", "06:00", "12:00", False),
    ],
)
def test_a_window_holds_from_its_beginning_to_before_its_end(
    start: str, end: str, at: str, holds: bool
) -> None:
    moment = datetime.combine(MONDAY.date(), time.fromisoformat(at), tzinfo=UTC)
    assert window(start, end).holds(moment) is holds


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on() -> None:
    night = window("22:00", "06:00", days=("mon",))
    assert night.holds(MONDAY + timedelta(hours=23))
    assert night.holds(MONDAY + timedelta(hours=29))
    assert not night.holds(MONDAY + timedelta(hours=5))


def test_a_window_goes_by_its_own_time_zone() -> None:
    evening = window("18:00", "19:00", timezone="Asia/Tokyo")
    assert evening.holds(MONDAY + timedelta(hours=9, minutes=30))
    assert not evening.holds(MONDAY + timedelta(hours=18, minutes=30))


def test_a_time_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="there is no time zone"):
        window("01:00", "02:00", timezone="Mars/Olympus")


@given(
    start=st.times(),
    end=st.times(),
    minutes=st.integers(0, 14 * 24 * 60),
    days=st.sets(st.sampled_from(DAYS)),
)
def test_a_moment_lies_in_a_window_or_in_its_complement(
    start: time, end: time, minutes: int, days: set[str]
) -> None:
    if start == end:
        return
    moment = MONDAY + timedelta(minutes=minutes)
    whole_week = Window(start=start, end=end)
    assert whole_week.holds(moment) is not Window(start=end, end=start).holds(moment)
    some_days = Window(start=start, end=end, days=tuple(days))
    assert whole_week.holds(moment) or not some_days.holds(moment)


def test_the_first_window_that_holds_wins_and_else_the_rates() -> None:
    limits = Limits(rates=SLOW, windows=(window("01:00", "02:00"),))
    assert limits.at(MONDAY + timedelta(hours=1)) == FAST
    assert limits.at(MONDAY + timedelta(hours=3)) == SLOW
    assert Limits().at(MONDAY) == Rates()
    assert Limits.from_document(limits.to_json()) == limits
