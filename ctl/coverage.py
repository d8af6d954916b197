"""What the archived oplog covers, as `list` and `status` show it to people."""

from __future__ import annotations

from typing import Final

from agent.wire.coverage import Coverage
from agent.wire.optime import OpTime
from agent.wire.timelines import Gap
from ctl.render import duration, moment, optime, size

GAPS_SHOWN: Final = 3
"""In `status`; `list` has all of them."""


def lines(covered: Coverage, *, unbacked: bool) -> list[str]:
    """For people."""
    lines = []
    for item in covered.ranges(unbacked=unbacked):
        start, end = (OpTime.from_document(item[key]) for key in ("start_ts", "end_ts"))
        words = f"  {moment(start.wall())} - {moment(end.wall())}  (to {optime(end)})"
        lines.append(words + ("" if not item["noBaseSnapshot"] else "  no base snapshot"))
    return lines + [_gap(gap) for gap in covered.gaps]


def _gap(gap: Gap) -> str:
    span = f"{moment(gap.start.wall())} - {moment(gap.end.wall())}"
    return f"  gap on {gap.replset}: {span}, {gap.cause}"


def rpo_lines(covered: Coverage, now: OpTime) -> list[str]:
    """What keeps the latest writes from being safe, and how far behind that is."""
    lines = [f"  Error: {error}" for error in covered.errors()]
    until, lag_s = covered.restorable_until(), covered.lag_s(now)
    if until is not None and lag_s is not None:
        lines.append(f"  Restorable until {moment(until.wall())}, {duration(lag_s)} ago")
    return lines


def status_lines(covered: Coverage, now: OpTime) -> list[str]:
    """One sentence on whether the latest writes are safe, and what keeps them from it."""
    lines = rpo_lines(covered, now)
    lines += [f"  Behind: {words}" for words in covered.behind()]
    lines += [_gap(gap) for gap in covered.gaps[-GAPS_SHOWN:]]
    if len(covered.gaps) > GAPS_SHOWN:
        lines.append(f"  {len(covered.gaps) - GAPS_SHOWN} earlier gaps; 'ctl list' shows all")
    newest = covered.spans()[-1:]
    if covered.needs_base:
        since = moment(newest[0].start.wall())
        lines.append(f"  Slices since {since} need a backup to begin from: take one")
    if covered.runs:
        lines.append(f"  Slices: {size(sum(run.stored_bytes for run in covered.runs))}")
    return lines
