"""Cron-like schedules: when something is due, as pure functions of moments in UTC.

A schedule has the five fields of crontab, or `@daily` and its like, and is meant in a named time
zone. Where a change of clocks leaves a local time out, the run happens as much later as the clocks
were moved on; where a local time comes twice, only the first counts. So a nightly run happens once
a night, and whoever wants more often than hourly runs to keep their distance uses UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter

FIELDS: Final = 5
COUNTED: Final = 1000
"""Missed moments are counted up to so many."""
_NICKNAMES: Final = frozenset(
    {"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"}
)
_SHIFT: Final = timedelta(hours=3)
"""No change of clocks is greater."""
_SOMEDAY: Final = datetime(2026, 1, 1)  # noqa: DTZ001  # naive: local times are what cron knows


def check_schedule(text: str) -> str:
    """The schedule as it is kept. Raises `ValueError` for what is none, or never comes."""
    words = text.split()
    if len(words) != FIELDS and words[:1] not in [[name] for name in _NICKNAMES]:
        raise ValueError(
            f"{text!r} is no schedule; write minute hour day month weekday, as in '0 2 * * *'"
        )
    try:
        croniter(text, _SOMEDAY).get_next(datetime)
    except (CroniterError, ValueError, KeyError) as error:
        raise ValueError(f"{text!r} is no schedule: {error}") from None
    return " ".join(words)


def zone_of(name: str) -> tzinfo:
    """A time zone by its name. Raises `ValueError`."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"{name!r} is no time zone known here; write UTC or a name like Europe/Paris"
            " (the package tzdata holds them)"
        ) from None


def next_moment(schedule: str, zone: tzinfo, after: datetime) -> datetime:
    """The first moment after another, in UTC."""
    first: datetime | None = None
    best: datetime | None = None
    for local in _local_moments(schedule, after.astimezone(zone).replace(tzinfo=None) - _SHIFT):
        if first is not None and local > first + _SHIFT:
            break
        moment = _in_utc(local, zone)
        if moment > after:
            first = first or local
            best = moment if best is None else min(best, moment)
    assert best is not None
    return best


@dataclass(frozen=True, slots=True)
class Due:
    """What has come due since the last look: the latest moment, and how many came before it."""

    latest: datetime
    earlier: int


def due(schedule: str, zone: tzinfo, after: datetime, until: datetime) -> Due | None:
    """The moments in `(after, until]`; None where there is none."""
    local_end = until.astimezone(zone).replace(tzinfo=None) + _SHIFT
    backwards = croniter(schedule, local_end)
    found: set[datetime] = set()
    oldest = after.astimezone(zone).replace(tzinfo=None) - _SHIFT
    for _ in range(COUNTED + 4 * 60):
        local = _naive(backwards.get_prev(datetime))
        if local < oldest:
            break
        moment = _in_utc(local, zone)
        if after < moment <= until:
            found.add(moment)
    return Due(max(found), min(len(found) - 1, COUNTED)) if found else None


def _local_moments(schedule: str, after: datetime) -> Iterator[datetime]:
    forwards = croniter(schedule, after)
    while True:
        yield _naive(forwards.get_next(datetime))


def _naive(found: Any) -> datetime:
    assert isinstance(found, datetime)
    return found


def _in_utc(local: datetime, zone: tzinfo) -> datetime:
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)
