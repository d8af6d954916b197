"""What a deletion that was asked for means as rules: the same for `ctl`, which shows them, and for
agents, who act on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.policy import KeepSettings
from agent.wire.retention import (
    LAST_OPTIME,
    Copy,
    Decision,
    Reading,
    Rules,
    decide,
    rules_of,
    window_start,
)
from agent.wire.settings import Settings
from agent.wire.specs import CleanupSpec, DeleteBackupSpec, DeletePitrSpec
from agent.wire.timelines import Span


def rules_for(operation: Operation, settings: Settings, spans: Sequence[Span]) -> Rules:
    """The rules of an operation that removes, in the server's time of its request."""
    now = operation.requested_at
    if operation.kind is Kind.DELETE_BACKUP:
        return backup_rules(DeleteBackupSpec.from_document(operation.spec), settings, now)
    if operation.kind is Kind.DELETE_PITR:
        return pitr_rules(DeletePitrSpec.from_document(operation.spec), settings, now, spans)
    spec = CleanupSpec.from_document(operation.spec)
    if spec.by_policy:
        return rules_of(settings.policy, now)
    return older_rules(spec.older_than, settings, now)


def backup_rules(spec: DeleteBackupSpec, settings: Settings, now: datetime) -> Rules:
    """Of `delete-backup`: by name nothing is promised here (a refusal says what would be lost)."""
    if spec.older_than is not None:
        return older_rules(spec.older_than, settings, now)
    return Rules(older_than=LAST_OPTIME, guards_newest=False, zone=settings.policy.zone)


def older_rules(older_than: OpTime | None, settings: Settings, now: datetime) -> Rules:
    """Of `--older-than`: every restorable moment from then on stays so, and what a policy's window
    promises; the backups go by their age."""
    promised = window_start(settings.policy, now)
    since = older_than if promised is None else min(promised, older_than or promised)
    return Rules(
        keep=KeepSettings(),
        since=since,
        zone=settings.policy.zone,
        older_than=older_than,
        guards_newest=settings.pitr.enabled,
        promise="PITR" if since == older_than else "the PITR window",
    )


def pitr_rules(
    spec: DeletePitrSpec, settings: Settings, now: datetime, spans: Sequence[Span]
) -> Rules:
    """Of `delete-pitr`. All of them means, while PITR is on, all that the newest moments do not
    need."""
    promised = window_start(settings.policy, now)
    older_than = spec.older_than
    if older_than is None:
        if promised is None and not settings.pitr.enabled:
            return Rules(zone=settings.policy.zone, takes_all_slices=True)
        older_than = spans[-1].end if spans else LAST_OPTIME
    since = older_than if promised is None else min(promised, older_than)
    promise = "PITR" if since == older_than else "the PITR window"
    return Rules(since=since, zone=settings.policy.zone, promise=promise)


def spared_since(settings: Settings, now: datetime, spans: Sequence[Span]) -> OpTime | None:
    """From where on no deletion by name may take restorable moments away: the policy's window;
    without one, while PITR is on, the newest moment."""
    promised = window_start(settings.policy, now)
    if promised is None and settings.pitr.enabled and spans:
        return spans[-1].end
    return promised


def copied_elsewhere(backups: Iterable[Backup], profile: str | None) -> frozenset[str]:
    """The backups that stay listed when their copy on one profile goes."""
    if profile is None:
        return frozenset()
    return frozenset(backup.id for backup in backups if len(backup.places) > 1)


def decide_deletion(
    copies: Sequence[Copy],
    spans: Sequence[Span],
    rules: Rules,
    reading: Sequence[Reading],
    *,
    only: frozenset[str],
    elsewhere: frozenset[str] = frozenset(),
) -> Decision:
    """`decide` for `delete-backup`: a backup that is elsewhere too is still there as a base."""
    decision = decide(copies, spans, rules, reading, only=only)
    if not elsewhere:
        return decision
    loose = replace(rules, since=None, guards_newest=False)
    spared = decide(copies, spans, loose, reading, only=only)
    verdicts = zip(decision.verdicts, spared.verdicts, strict=True)
    chosen = tuple(easy if strict.name in elsewhere else strict for strict, easy in verdicts)
    return replace(decision, verdicts=chosen)
