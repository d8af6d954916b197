"""The page as HTML, from a view. Everything that others wrote is escaped by the template engine."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from agent.version import VERSION
from agent.web.model import View
from agent.web.overview_json import backups_json, restores_json
from agent.web.timeline import timeline
from agent.wire.overview import Overview
from agent.wire.safety import Level, Safety, proofs
from agent.wire.wording import duration, moment, number, size

MOST_BACKUPS: Final = 50
MOST_RESTORES: Final = 10
HEADLINES: Final = {
    Level.SAFE: "You are safe",
    Level.RISK: "You are safe, but look at this",
    Level.UNSAFE: "You are not safe",
}
_ROLES: Final = {
    "P": "primary",
    "S": "secondary",
    "H": "hidden",
    "D": "delayed",
    "U": "starting",
    "X": "down",
    "A": "arbiter",
}


def render_page(view: View) -> str:
    """The whole page."""
    return _environment().get_template("page.html").render(**_facts(view))


def render_main(view: View) -> str:
    """What of it changes."""
    return _environment().get_template("main.html").render(**_facts(view))


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("agent.web", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        size=size,
        number=number,
        duration=duration,
        moment=moment,
        utc=_utc,
        percent=_percent,
    )
    return found


def _facts(view: View) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "node": view.local.node,
        "version": VERSION,
        "error": view.error,
        "age_s": view.age_s,
        "overview": None,
    }
    overview, safety = view.overview, view.safety
    if overview is None or safety is None:
        return facts
    return {
        **facts,
        "overview": overview,
        "safety": safety,
        "level": safety.level.name.lower(),
        "headline": _headline(safety),
        "now": int(overview.now.T + view.age_s),
        "last_backup": _last_backup(overview, safety, view.age_s),
        "reaches": safety.restorable_until == overview.covered.restorable_until(),
        "pitr": overview.settings.pitr.enabled,
        "gaps": overview.gaps,
        "gap_s": sum(max(0, gap.end.T - gap.start.T) for gap in overview.gaps),
        "proved_at": max(proofs(overview).values(), default=None),
        "running": overview.running(),
        "timeline": timeline(overview),
        "section": overview.backups_section(),
        "backups": backups_json(overview)[:MOST_BACKUPS],
        "backup_count": len(overview.backups),
        "unpublished": _unpublished(overview),
        "restores": restores_json(overview)[:MOST_RESTORES],
        "cluster": overview.cluster(),
        "roles": _ROLES,
        "slicers": [owner.rpartition("/")[2] for owner in overview.pitr()["nodes"]],
    }


def _headline(safety: Safety) -> str:
    return HEADLINES[safety.level]


def _last_backup(overview: Overview, safety: Safety, age_s: float) -> dict[str, Any] | None:
    newest = safety.last_backup
    if newest is None:
        return None
    return {
        "name": newest.id,
        "at": newest.last_write.T,
        "age_s": max(0.0, overview.now.T - newest.last_write.T + age_s),
        "size": newest.size_bytes,
        "duration_s": overview.duration_s(newest),
    }


def _unpublished(overview: Overview) -> list[dict[str, Any]]:
    """Backups that failed or were cancelled, the newest first."""
    snapshots = overview.backups_section()["snapshot"]
    return [item for item in snapshots if item["status"] in ("failed", "cancelled")][:MOST_RESTORES]


def _utc(seconds: float | None) -> str:
    """`2026-11-22 03:08:36` of seconds since 1970."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _percent(done: float, total: float) -> float:
    """0 to 100, of amounts that are estimated."""
    return round(100 * min(1.0, done / total), 1) if total > 0 else 0.0
