"""Values as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from agent.wire.optime import OpTime
from ctl.render import as_yaml, duration, epoch, moment, number, optime, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_582_912, "12.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (2 << 50, "2.0 PiB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (42, "42 s"),
        (59.7, "1m00s"),
        (185, "3m05s"),
        (7620, "2h07m"),
        (356_400, "4d03h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_utc() -> None:
    berlin = datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    naive = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001  # as an old driver would give it
    assert moment(berlin) == moment(naive) == "2026-01-02T03:04:05Z"
    assert epoch(berlin) == epoch(naive) == int(naive.replace(tzinfo=UTC).timestamp())
    assert moment(None) == "-"
    assert epoch(None) is None
    assert number(None) == "-"


def test_optimes_show_their_increment_unless_a_second_is_meant() -> None:
    assert optime(OpTime(T=0, I=3)) == "1970-01-01T00:00:00Z (0,3)"
    assert optime(OpTime.end_of_second(0)) == "1970-01-01T00:00:00Z"
    assert optime(None) == "-"


def test_absent_facts_are_left_out_of_yaml() -> None:
    facts: dict[str, Any] = {
        "a": None,
        "b": [{"c": None, "d": "ü"}],
        "e": {},
        "f": datetime(2026, 1, 1, tzinfo=UTC),
    }
    assert as_yaml(facts) == "b:\n- d: ü\ne: {}\nf: '2026-01-01 00:00:00+00:00'"
