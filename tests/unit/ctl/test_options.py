"""Values as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from ctl.options import Duration, Names, OlderThan, Remapping


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25)],
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "-3s", "3x", "s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)


def test_names_are_split_and_stripped() -> None:
    assert Names().convert("a.b, c.*,,", None, None) == ("a.b", "c.*")
    assert Names().convert(("x",), None, None) == ("x",)


def test_remapping_is_written_to_from_and_kept_from_to() -> None:
    assert Remapping().convert("here=there, rs1 = old1", None, None) == {
        "there": "here",
        "old1": "rs1",
    }


@pytest.mark.parametrize("text", ["x", "=x", "x=", "a=b,a=c", "a=b,c=b"])
def test_no_remapping(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Remapping().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("7d", timedelta(days=7)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("1767323045", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    ],
)
def test_older_than(text: str, moment: datetime | timedelta) -> None:
    assert OlderThan().convert(text, None, None) == moment
    assert OlderThan().convert(moment, None, None) == moment


@pytest.mark.parametrize(
    "text", ["", "d", "7 days", "2026-13-01", "2026-01-02T03:04", "1,2", "2026", "1767323045000"]
)
def test_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter):
        OlderThan().convert(text, None, None)
