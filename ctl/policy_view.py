"""Schedules and retention for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ctl.render import duration, moment


def run_rows(runs: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """The same for a table: SCHEDULE, WHEN, NEXT, LAST."""
    rows = []
    for run in runs:
        coming = _moment(run["next"]) if run["next"] else "paused"
        coming += f" (in {duration(run['in_s'])})" if run["next"] else ""
        last = f"{run['last_outcome']} {_moment(run['last'])}" if run["last"] else "-"
        last += f", {run['missed']} missed" if run["missed"] else ""
        rows.append((run["schedule"], run["cron"], coming, last))
    return rows


def lines(found: Mapping[str, Any]) -> list[str]:
    """The same for people, two lines at most."""
    if not found["runs"] and not found["keep"] and found["pitr_window_s"] is None:
        return ["  nothing is scheduled, and nothing goes by itself"]
    words = [
        f"  {name}: next {coming}, last {last}" for name, _, coming, last in run_rows(found["runs"])
    ]
    keeps = [f"{count} {name}" for name, count in found["keep"].items()]
    window = found["pitr_window_s"]
    kept = f"keeps {', '.join(keeps)}" if keeps else "keeps all backups"
    promise = f"; every moment of the last {duration(window)}" if window is not None else ""
    words.append(f"  {kept[0].upper()}{kept[1:]}{promise}")
    if found["orphans"]:
        words.append(f"  {found['orphans']} leftover objects wait to be swept")
    return words


def _moment(seconds: int) -> str:
    return moment(datetime.fromtimestamp(seconds, UTC))
