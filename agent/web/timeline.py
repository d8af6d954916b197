"""The timeline: where on the page's axis coverage, holes, backups and restores lie. Pure.

Positions are percent of the width, so that the browser needs no script and no second drawing for a
phone. The span shown is the smallest of a few that holds all there is, at most five weeks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from agent.wire.operations import Kind, State
from agent.wire.overview import Overview
from agent.wire.safety import replsets
from agent.wire.snapshots import of_backup
from agent.wire.timelines import merged
from agent.wire.wording import duration, moment, size

SPANS_S: Final = tuple(
    round(hours * 3600) for hours in (0.25, 0.5, 1, 2, 4, 8, 24, 48, 4 * 24, 7 * 24, 14 * 24)
)
LONGEST_S: Final = 35 * 24 * 3600
STEPS_S: Final = (60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 2 * 86400, 7 * 86400)
MAX_TICKS: Final = 8
LEAST_WIDTH: Final = 0.35
"""Percent: a hole of a second is seen, too."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of time."""

    left: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment."""

    at: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of bars: what can be restored to, or what one replica set has archived."""

    name: str
    kind: str
    bars: tuple[Bar, ...]
    gaps: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """All that is drawn."""

    start: int
    end: int
    ticks: tuple[Mark, ...]
    rows: tuple[Row, ...]
    marks: tuple[Mark, ...]

    @property
    def words(self) -> str:
        """What it spans, for who cannot see it."""
        return f"from {_clock(self.start, self.end)} to now, {duration(self.end - self.start)}"


def timeline(overview: Overview) -> Timeline:
    """Of the latest stretch of time."""
    now = overview.now.T
    firsts = [run.start.T for run in overview.runs] + [b.last_write.T for b in overview.backups]
    needed = now - min(firsts, default=now)
    span = next((s for s in SPANS_S if s >= needed * 1.02), LONGEST_S)
    axis = _Axis(now - span, now)
    ticks = tuple(
        Mark(axis.at(at), "tick", _clock(at, now, span)) for at in _tick_times(now - span, now)
    )
    return Timeline(now - span, now, ticks, _rows(overview, axis), _marks(overview, axis))


@dataclass(frozen=True, slots=True)
class _Axis:
    start: int
    end: int

    def at(self, moment_s: float) -> float:
        share = (moment_s - self.start) / (self.end - self.start)
        return round(100 * min(1.0, max(0.0, share)), 3)

    def bar(self, start: int, end: int, title: str) -> Bar | None:
        if end < self.start or start > self.end:
            return None
        left, right = self.at(start), self.at(end)
        width = max(LEAST_WIDTH, right - left)
        return Bar(min(left, 100 - width), round(width, 3), title)


def _rows(overview: Overview, axis: _Axis) -> tuple[Row, ...]:
    ranges = overview.covered.ranges(unbacked=False)
    reach = [
        axis.bar(r["start_ts"]["T"], r["end_ts"]["T"], f"any moment, {_between(r)}") for r in ranges
    ]
    unbacked = [
        axis.bar(r["start_ts"]["T"], r["end_ts"]["T"], f"no backup to begin from, {_between(r)}")
        for r in overview.covered.ranges()
        if r["noBaseSnapshot"] and axis.at(r["end_ts"]["T"]) - axis.at(r["start_ts"]["T"]) >= 1
    ]
    found = [
        Row("Restorable", "reach", _there(reach)),
        *([Row("Without a base", "unbacked", _there(unbacked))] if any(unbacked) else []),
    ]
    for name in replsets(overview):
        spans = merged(run.span for run in overview.runs if run.replset == name)
        bars = [axis.bar(s.start.T, s.end.T, f"archived oplog of {name}") for s in spans]
        gaps = [
            axis.bar(g.start.T, g.end.T, f"hole in {name}: {g.cause}")
            for g in overview.gaps
            if g.replset == name
        ]
        if any(bars) or any(gaps):
            found.append(Row(name, "archived", _there(bars), _there(gaps)))
    return tuple(found)


def _there(bars: list[Bar | None]) -> tuple[Bar, ...]:
    return tuple(bar for bar in bars if bar is not None)


def _between(found: dict[str, dict[str, int]]) -> str:
    start, end = (datetime.fromtimestamp(found[k]["T"], UTC) for k in ("start_ts", "end_ts"))
    return f"{moment(start)} to {moment(end)}"


def _marks(overview: Overview, axis: _Axis) -> tuple[Mark, ...]:
    found = []
    for backup in overview.backups:
        if axis.start <= backup.last_write.T:
            facts = of_backup(backup)
            kind = "selective" if facts["selective"] else "backup"
            at = moment(backup.last_write.wall())
            title = f"backup {backup.id}, {size(backup.size_bytes)}, restores to {at}"
            found.append(Mark(axis.at(backup.last_write.T), kind, title))
    for operation in overview.recent:
        at_s = operation.requested_at.timestamp()
        if at_s < axis.start or operation.spec.get("dry_run"):
            continue
        if operation.kind is Kind.BACKUP and operation.state is State.FAILED:
            found.append(Mark(axis.at(at_s), "failed", f"failed backup {operation.name}"))
        elif operation.kind.writes_data:
            title = f"{operation.kind} {operation.name}: {operation.state}"
            found.append(Mark(axis.at(at_s), "restore", title))
    return tuple(found)


def _tick_times(start: int, end: int) -> list[int]:
    step = next((s for s in STEPS_S if (end - start) / s <= MAX_TICKS), STEPS_S[-1])
    first = -(-start // step) * step
    return list(range(first, end, step))


def _clock(at: int, now: int, span: int | None = None) -> str:
    when = datetime.fromtimestamp(at, UTC)
    long = (span or now - at) > 36 * 3600
    return when.strftime("%d %b") if long else when.strftime("%H:%M")
