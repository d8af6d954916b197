"""What the page shows, as JSON for programs: `/api/overview`. Changes only by addition."""

from __future__ import annotations

import math
from typing import Any

from agent.version import VERSION
from agent.web.model import View
from agent.wire.operations import Kind
from agent.wire.overview import Overview
from agent.wire.safety import Safety, proofs
from agent.wire.snapshots import of_backup
from agent.wire.wording import epoch


def overview_json(view: View) -> dict[str, Any]:
    """Without a reading yet, only who answers and why there is none."""
    head: dict[str, Any] = {
        "schema_version": 1,
        "agent": {"node": view.local.node, "version": VERSION},
        "cluster_id": view.local.cluster_id,
        "age_s": round(view.age_s, 1),
        "error": view.error,
    }
    overview, safety = view.overview, view.safety
    if overview is None or safety is None:
        return {**head, "safety": None}
    return {
        **head,
        "now": overview.now.T,
        "safety": safety_json(safety),
        "cluster": overview.cluster(),
        "pitr": {
            **overview.pitr(),
            "ranges": overview.covered.ranges(),
            "gaps": overview.covered.gaps_found(),
        },
        "running": overview.running(),
        "backups": backups_json(overview),
        "restores": restores_json(overview),
    }


def safety_json(safety: Safety) -> dict[str, Any]:
    """The verdict; `rpo_s` is null when nothing can be restored."""
    until = safety.restorable_until
    return {
        "level": safety.level.name.lower(),
        "restorable_until": until.to_json() if until is not None else None,
        "rpo_s": round(safety.rpo_s, 1) if math.isfinite(safety.rpo_s) else None,
        "last_backup": safety.last_backup.id if safety.last_backup is not None else None,
        "findings": [
            {"code": f.code, "level": f.level.name.lower(), "text": f.text, "hint": f.hint}
            for f in safety.findings
        ],
    }


def backups_json(overview: Overview) -> list[dict[str, Any]]:
    """The newest first, with how long each took and when it was last proven."""
    proved = proofs(overview)
    newest = sorted(overview.backups, key=lambda b: b.last_write, reverse=True)
    return [
        {
            **of_backup(backup),
            "duration_s": round(overview.duration_s(backup), 1),
            "proved_at": epoch(proved.get(backup.id)),
        }
        for backup in newest
    ]


def restores_json(overview: Overview) -> list[dict[str, Any]]:
    """The latest restores, the newest first."""
    return [
        {
            "name": op.name,
            "status": op.state.value,
            "backup": op.spec.get("backup"),
            "restored_to": op.result.get("restored_to"),
            "start": epoch(op.requested_at),
            "finish": epoch(op.finished_at),
            "error": op.error.message if op.error is not None else None,
        }
        for op in overview.recent
        if op.kind in (Kind.RESTORE, Kind.OPLOG_REPLAY) and not op.spec.get("dry_run")
    ]
