"""Am I safe? What an overview says of that, as one verdict and the findings it rests on. Pure.

The page, readiness, the webhooks' deadline and the alert rules mean the same by each finding; the
rules say it in their own language, and docs/monitoring.md says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final

from agent.wire.backups import Backup
from agent.wire.leases import slicer_scope
from agent.wire.nodes import MAX_LAG_S, NodeStatus, Role
from agent.wire.operations import Kind, Operation, State
from agent.wire.optime import OpTime
from agent.wire.overview import Overview
from agent.wire.timelines import Gap, GapCause
from agent.wire.wording import duration, moment

LAG_FLOOR_S: Final = 60.0
LAG_SPANS: Final = 3.0
"""Archiving is late when it is behind by more than a minute and three spans."""
STUCK_AFTER_S: Final = 1800.0
GAP_NEWS_S: Final = 24 * 3600.0
"""For how long a hole is worth a finding although a base was taken since."""
INTENDED: Final = frozenset({GapCause.RESTORE, GapCause.DISABLED})
"""Causes that somebody chose."""
PROVING: Final = frozenset({"restore", "prove"})
"""Kinds of operations that prove the backup they read."""
_FIT: Final = frozenset({Role.PRIMARY, Role.SECONDARY, Role.HIDDEN, Role.DELAYED})


class Level(IntEnum):
    """How bad it is."""

    SAFE = 0
    RISK = 1
    """A fault more, and something is lost; or somebody should look today."""
    UNSAFE = 2
    """A disaster now would lose more than was promised."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, for people."""

    code: str
    level: Level
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Safety:
    """The verdict at a moment."""

    findings: tuple[Finding, ...]
    restorable_until: OpTime | None
    rpo_s: float
    """What a disaster now would lose at most, in seconds; infinite when nothing can be restored."""
    last_backup: Backup | None
    """The newest one that holds everything."""

    @property
    def level(self) -> Level:
        """The worst of the findings."""
        return max((finding.level for finding in self.findings), default=Level.SAFE)


def assess(overview: Overview, *, age_s: float = 0.0) -> Safety:
    """The verdict; `age_s` is how long ago the overview was read."""
    until, rpo_s = restorable_until(overview), float("inf")
    if until is not None:
        rpo_s = max(0.0, overview.now.T - until.T + age_s)
    found = [
        *_of_settings(overview),
        *_of_backups(overview, age_s),
        *_of_archiving(overview, rpo_s),
        *_of_gaps(overview),
        *_of_agents(overview),
        *_of_operations(overview),
    ]
    found.sort(key=lambda finding: -finding.level)
    return Safety(tuple(found), until, rpo_s, last_backup(overview))


def restorable_until(overview: Overview) -> OpTime | None:
    """The latest moment that can be restored to, with slices or without."""
    ends = [b.last_write for b in overview.backups if not b.is_selective]
    sliced = overview.covered.restorable_until()
    return max([*ends, *([sliced] if sliced is not None else [])], default=None)


def last_backup(overview: Overview) -> Backup | None:
    """The newest one that holds everything."""
    whole = [b for b in overview.backups if not b.is_selective]
    return max(whole, key=lambda b: b.last_write, default=None)


def late_after_s(overview: Overview) -> float:
    """From which lag on archiving counts as late."""
    return LAG_FLOOR_S + LAG_SPANS * overview.settings.pitr.oplog_span_s


def is_excluded(node: NodeStatus) -> bool:
    """Whether the node can do nothing now: starting, down, or far behind without meaning to be."""
    behind = node.lag_s > MAX_LAG_S and node.role is not Role.DELAYED
    return node.is_live and (node.role not in _FIT or behind)


def replsets(overview: Overview) -> list[str]:
    """All that are known, by name."""
    return sorted({n.replset for n in overview.nodes} | {overview.replset})


def slicerless(overview: Overview) -> list[str]:
    """Replica sets that nobody archives although somebody should."""
    if not overview.settings.pitr.enabled or overview.settings.storage is None:
        return []
    if any(op.kind.writes_data for op in overview.active):
        return []
    return [name for name in replsets(overview) if slicer_scope(name) not in overview.leases]


def failed_backup(overview: Overview) -> Operation | None:
    """The newest backup, if it failed."""
    ended = [
        op
        for op in overview.recent
        if op.kind is Kind.BACKUP and op.state in (State.DONE, State.FAILED)
    ]
    newest = max(ended, key=lambda op: op.requested_at, default=None)
    if newest is None or newest.state is State.DONE:
        return None
    published = any(b.started_at > newest.requested_at for b in overview.backups)
    return None if published else newest


def proofs(overview: Overview) -> dict[str, datetime]:
    """Per backup when it was last proven, by a restore or a verification that ended well."""
    found: dict[str, datetime] = {
        backup.id: backup.proof.at
        for backup in overview.backups
        if backup.proof is not None and backup.proof.at is not None
    }
    for operation in overview.recent:
        if operation.kind.value not in PROVING or operation.state is not State.DONE:
            continue
        if operation.spec.get("dry_run") or operation.result.get("harmed"):
            continue
        name = operation.result.get("backup") or operation.spec.get("backup")
        at = operation.finished_at
        if isinstance(name, str) and at is not None:
            found[name] = max(found.get(name, at), at)
    return found


def unintended(gaps: tuple[Gap, ...]) -> list[Gap]:
    """The holes that nobody chose."""
    return [gap for gap in gaps if gap.cause not in INTENDED]


def _of_settings(overview: Overview) -> list[Finding]:
    if overview.settings.storage is not None:
        return []
    hint = "write one to a file and run: ctl config --file storage.yaml"
    return [Finding("no-storage", Level.UNSAFE, "No storage is configured", hint)]


def _of_backups(overview: Overview, age_s: float) -> list[Finding]:
    if overview.settings.storage is None:
        return []
    found, newest = [], last_backup(overview)
    if newest is None:
        text = "There is no backup of everything"
        found.append(Finding("no-backup", Level.UNSAFE, text, "take one: ctl backup --wait"))
    else:
        limit_s = overview.settings.notify.max_age
        old_s = overview.now.T - newest.last_write.T + age_s
        if old_s > limit_s:
            text = f"The last backup is {duration(old_s)} old, the limit is {duration(limit_s)}"
            hint = "see why none was made: ctl logs -e backup"
            found.append(Finding("backup-too-old", Level.RISK, text, hint))
    harmed = [b for b in overview.backups if b.verdict is not None and not b.verdict.is_sound]
    if harmed:
        names = ", ".join(backup.id for backup in harmed[:3])
        level = Level.UNSAFE if newest in harmed else Level.RISK
        text = f"{len(harmed)} backups are harmed: {names}"
        if len(harmed) == 1:
            text = f"The backup {names} is harmed"
        hint = "take another: ctl backup --wait; ctl describe-backup says what is wrong"
        found.append(Finding("backup-harmed", level, text, hint))
    failed = failed_backup(overview)
    if failed is not None:
        why = failed.error.message if failed.error is not None else "no reason is known"
        hint = (failed.error.hint if failed.error is not None else "") or "ctl logs -e backup"
        text = f"The backup {failed.name} failed: {why}"
        found.append(Finding("backup-failed", Level.RISK, text, hint))
    return found


def _of_archiving(overview: Overview, rpo_s: float) -> list[Finding]:
    if not overview.settings.pitr.enabled or overview.settings.storage is None:
        return []
    found = [
        Finding("archiving-error", Level.RISK, f"Archiving does not get on: {error}")
        for error in overview.covered.errors()
    ]
    idle = slicerless(overview)
    if idle:
        text = f"Nobody archives the oplog of {', '.join(idle)}"
        found.append(Finding("no-slicer", Level.RISK, text, "ctl status; ctl logs -s W"))
    if overview.covered.needs_base:
        text = "What is archived now needs a backup to begin from"
        found.append(Finding("base-missing", Level.UNSAFE, text, "take one: ctl backup --wait"))
    elif late_after_s(overview) < rpo_s < float("inf"):
        text = f"Archiving is behind: a disaster now would lose {duration(rpo_s)}"
        found.append(Finding("archiving-late", Level.UNSAFE, text, "ctl status -s pitr"))
    return found


def _of_gaps(overview: Overview) -> list[Finding]:
    found = []
    for gap in unintended(overview.gaps):
        at = gap.at.timestamp() if gap.at is not None else gap.end.T
        if overview.now.T - at < GAP_NEWS_S:
            span = f"{moment(gap.start.wall())} to {moment(gap.end.wall())}"
            text = f"A hole in {gap.replset}, {span}: {gap.cause}"
            hint = "times inside it cannot be restored to; later ones can once a backup follows"
            found.append(Finding("gap", Level.RISK, text, hint))
    return found


def _of_agents(overview: Overview) -> list[Finding]:
    found = []
    for name in replsets(overview):
        members = [node for node in overview.nodes if node.replset == name]
        if not any(node.is_live for node in members):
            text = f"No agent of {name} is alive"
            hint = "start one: systemctl start tidelog-agent"
            found.append(Finding("replset-without-agents", Level.UNSAFE, text, hint))
        for node in members:
            found += _of_node(node)
    return found


def _of_node(node: NodeStatus) -> list[Finding]:
    if not node.is_live:
        text = f"The agent of {node.host} ({node.replset}) has been silent for"
        hint = f"on that host: systemctl status tidelog-agent; ctl logs -n {node.id}"
        return [Finding("agent-silent", Level.RISK, f"{text} {duration(node.age_s)}", hint)]
    found = []
    if node.storage_error is not None:
        text = f"{node.host} cannot use the storage: {node.storage_error}"
        found.append(Finding("storage-unusable", Level.UNSAFE, text, "docs/troubleshooting.md"))
    for profile, warning in sorted(node.storage_warnings.items()):
        text = f"{node.host}, storage {profile}: {warning}"
        found.append(Finding("storage-worry", Level.RISK, text, "docs/storage"))
    if is_excluded(node):
        why = f"{duration(node.lag_s)} behind" if node.role in _FIT else f"it is {node.role}"
        text = f"{node.host} can do nothing: {why}"
        found.append(Finding("node-excluded", Level.RISK, text))
    return found


def _of_operations(overview: Overview) -> list[Finding]:
    found = []
    for operation in overview.active:
        silent_s = overview.now.T - (operation.updated_at or operation.requested_at).timestamp()
        if not operation.queued and silent_s > STUCK_AFTER_S:
            text = f"The {operation.kind} {operation.name} has not moved for {duration(silent_s)}"
            found.append(
                Finding("operation-stuck", Level.RISK, text, f"ctl logs -i {operation.id}")
            )
    return found
