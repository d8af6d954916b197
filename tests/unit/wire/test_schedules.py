"""Schedules: when something comes due, across changes of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire.schedules import COUNTED, Due, check_schedule, due, next_moment, zone_of

PARIS = zone_of("Europe/Paris")
"""In 2026 it moves on at 2026-03-29T01:00Z and back at 2026-10-25T01:00Z."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["0 2 * * *", "*/5 8-18 * * mon-fri", "@daily", " 0  0 1 * * "])
def test_what_crontab_takes_is_a_schedule(text: str) -> None:
    assert check_schedule(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    ["", "0 2 * *", "0 2 * * * *", "61 * * * *", "@reboot", "0 0 30 2 *", "daily", "H 2 * * x"],
)
def test_what_never_comes_or_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no schedule"):
        check_schedule(text)


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="Mars/Olympus"):
        zone_of("Mars/Olympus")
    assert zone_of("utc") is UTC


def test_a_schedule_is_meant_in_its_time_zone() -> None:
    assert next_moment("30 2 * * *", PARIS, at("2026-01-10T00:00")) == at("2026-01-10T01:30")
    assert next_moment("30 2 * * *", PARIS, at("2026-07-10T00:00")) == at("2026-07-10T00:30")


def test_a_local_time_that_is_left_out_comes_an_hour_later() -> None:
    before = at("2026-03-28T12:00")
    assert next_moment("30 2 * * *", PARIS, before) == at("2026-03-29T01:30")
    assert next_moment("30 2 * * *", PARIS, at("2026-03-29T01:10")) == at("2026-03-29T01:30")
    assert next_moment("30 2 * * *", PARIS, at("2026-03-29T01:30")) == at("2026-03-30T00:30")


def test_a_local_time_that_comes_twice_counts_once() -> None:
    first = next_moment("30 2 * * *", PARIS, at("2026-10-24T12:00"))
    assert first == at("2026-10-25T00:30")
    assert next_moment("30 2 * * *", PARIS, first) == at("2026-10-26T01:30")


def test_of_several_moments_the_latest_is_due_and_the_others_are_counted() -> None:
    found = due("0 * * * *", UTC, at("2026-05-01T00:00"), at("2026-05-01T05:20"))
    assert found == Due(at("2026-05-01T05:00"), 4)
    assert due("0 * * * *", UTC, at("2026-05-01T05:00"), at("2026-05-01T05:59")) is None


def test_a_long_absence_is_counted_up_to_a_bound() -> None:
    found = due("* * * * *", UTC, at("2020-01-01T00:00"), at("2026-01-01T00:00"))
    assert found is not None
    assert found.latest == at("2026-01-01T00:00")
    assert found.earlier == COUNTED


starts = st.integers(0, 365 * 24 * 60).map(lambda n: at("2026-01-01T00:00") + timedelta(minutes=n))
schedules = st.sampled_from(
    ["30 2 * * *", "*/20 * * * *", "15 1-3 * * *", "0 0 1 * *", "5 2 * * sun"]
)


@settings(deadline=None)
@given(schedules, starts, st.integers(1, 48))
def test_what_is_next_is_due_then_and_not_before(text: str, start: datetime, hours: int) -> None:
    coming = next_moment(text, PARIS, start)
    assert coming > start
    assert due(text, PARIS, start, coming - timedelta(seconds=1)) is None
    found = due(text, PARIS, start, coming + timedelta(hours=hours))
    assert found is not None
    assert found.latest >= coming
    again = due(text, PARIS, start, coming)
    assert again == Due(coming, 0)


@settings(deadline=None)
@given(starts)
def test_a_nightly_run_comes_once_a_night_all_year(start: datetime) -> None:
    night, following = start, next_moment("30 2 * * *", PARIS, start)
    for _ in range(3):
        night, following = following, next_moment("30 2 * * *", PARIS, following)
        assert timedelta(hours=22) < following - night < timedelta(hours=26)
        assert night.astimezone(PARIS).date() != following.astimezone(PARIS).date()
