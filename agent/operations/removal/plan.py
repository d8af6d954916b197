"""What one operation removes, decided by its lead and written down before anything is touched.

Two may not miss each other: a restore that begins, and a deletion that begins. Each first writes
what it is about to do into its operation, then looks at the other's. So the deletion reads the
operations again after its plan is stored, and keeps what anybody reads by then; a restore that
finds a stored plan that hits it refuses (`check_not_doomed`).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from pydantic import Field

from agent.errors import Conflict, NotFound, Refused
from agent.operations.context import LeadContext
from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.places import Places
from agent.wire.record import Record
from agent.wire.removals import copied_elsewhere, decide_deletion, rules_for, spared_since
from agent.wire.retention import Decision, copy_of, decide, lost_spans, readings
from agent.wire.settings import Settings
from agent.wire.specs import CleanupSpec, DeleteBackupSpec
from agent.wire.timelines import Run, Span, coverage

WRITER_MARGIN: Final = timedelta(minutes=5)
"""A backup's slices begin before it was asked for by the age of the oldest open transaction."""
REMEMBERED: Final = 500


class Reason(Record):
    """Why a backup goes or stays."""

    name: str
    reason: str


class Plan(Record):
    """What goes, and why the rest stays. Part of the operation's result."""

    backups: tuple[Reason, ...] = ()
    kept: tuple[Reason, ...] = ()
    """The first so many of those that were meant and stay."""
    floor: OpTime | None = None
    floor_reason: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The backups that go."""
        return tuple(reason.name for reason in self.backups)


class Known(Record):
    """What the control database says, read together."""

    backups: tuple[Backup, ...]
    runs: tuple[Run, ...] = Field(default=())
    active: tuple[Operation, ...] = Field(default=())

    @property
    def spans(self) -> list[Span]:
        """What the archived oplog covers."""
        return coverage(self.runs)


async def read_known(lead: LeadContext) -> Known:
    """As it is now."""
    services = lead.services
    places = Places(lead.settings, await services.repositories.read())
    return Known(
        backups=tuple(await services.catalog.backups()),
        runs=places.runs(await services.runs.runs()),
        active=tuple(await services.operations.active()),
    )


def planned(known: Known, operation: Operation, settings: Settings) -> Plan:
    """What the operation's specification means now. Raises `NotFound`, `Refused`, `Conflict` for
    what a person named and must stay."""
    backups = {backup.id: backup for backup in known.backups}
    moments = {name: backup.last_write for name, backup in backups.items()}
    reading = readings((op for op in known.active if op.id != operation.id), moments)
    copies = [copy_of(backup) for backup in known.backups]
    rules = rules_for(operation, settings, known.spans)
    if operation.kind is Kind.DELETE_BACKUP:
        spec = DeleteBackupSpec.from_document(operation.spec)
        elsewhere = copied_elsewhere(known.backups, spec.profile)
        decision = decide_deletion(
            copies, known.spans, rules, reading, only=frozenset(spec.names), elsewhere=elsewhere
        )
        if spec.older_than is None:
            _refuse(known, decision, spec, settings, operation)
        return _plan(decision, spec.names, floor=False)
    decision = decide(copies, known.spans, rules, reading)
    if operation.kind is Kind.DELETE_PITR:
        return _guarded(_plan(decision, (), floor=True), known)
    cleanup = CleanupSpec.from_document(operation.spec)
    if cleanup.older_than is None and not cleanup.by_policy:
        return Plan()
    return _guarded(_plan(decision, tuple(backups), floor=True), known)


def _plan(decision: Decision, names: tuple[str, ...], *, floor: bool) -> Plan:
    meant = set(names)
    reasons = [
        (v.stays, Reason(name=v.name, reason="; ".join(v.reasons)))
        for v in decision.verdicts
        if v.name in meant
    ]
    return Plan(
        backups=tuple(reason for stays, reason in reasons if not stays),
        kept=tuple(reason for stays, reason in reasons if stays)[:REMEMBERED],
        floor=decision.floor if floor else None,
        floor_reason=decision.floor_reason if floor else "",
    )


def _guarded(plan: Plan, known: Known) -> Plan:
    """The slices that a backup under way writes for itself are not named by anything yet."""
    for operation in known.active:
        if operation.kind is Kind.BACKUP and plan.floor is not None:
            begun = operation.requested_at - WRITER_MARGIN
            bound = OpTime(T=int(begun.timestamp()), I=0)
            if bound < plan.floor:
                words = f"backup {operation.name} is under way"
                plan = plan.model_copy(update={"floor": bound, "floor_reason": words})
    return plan


def _refuse(
    known: Known,
    decision: Decision,
    spec: DeleteBackupSpec,
    settings: Settings,
    operation: Operation,
) -> None:
    """A person named them: what cannot go refuses the whole."""
    backups = {backup.id: backup for backup in known.backups}
    for name in spec.names:
        if name not in backups:
            raise NotFound(f"there is no backup {name}", hint="'ctl list' shows what there is")
    for verdict in decision.verdicts:
        if verdict.name in spec.names and verdict.stays:
            kind = Refused if backups[verdict.name].hold else Conflict
            raise kind(f"backup {verdict.name} stays: {'; '.join(verdict.reasons)}", hint="")
    since = spared_since(settings, operation.requested_at, known.spans)
    if since is None:
        return
    bases = {name: b.last_write for name, b in backups.items() if not b.is_selective}
    elsewhere = copied_elsewhere(known.backups, spec.profile)
    after = [at for name, at in bases.items() if name not in spec.names or name in elsewhere]
    lost = [span for span in lost_spans(known.spans, bases.values(), after) if span.end >= since]
    lost = [span for span in lost if max(span.start, since) <= span.end]
    if lost:
        raise Refused(
            f"PITR needs backup {', '.join(spec.names)} as a base: without it nothing from"
            f" {max(lost[0].start, since).in_words()} to {lost[0].end.in_words()}"
            " could be restored",
            hint="take a new backup first, or switch PITR off and delete its slices with"
            " 'ctl delete-pitr'",
        )


def check_not_doomed(
    active: Iterable[Operation], *, backup: str | None, slices_after: OpTime | None
) -> None:
    """For whoever is about to read: raises `Conflict` when a deletion in progress has planned to
    remove it. To be called after the reader's own operation was written."""
    for operation in active:
        if not operation.kind.removes or "plan" not in operation.result:
            continue
        plan = Plan.from_document(operation.result["plan"])
        hits_slices = (
            slices_after is not None and plan.floor is not None and slices_after < plan.floor
        )
        if backup in plan.names or hits_slices:
            raise Conflict(
                f"{operation.kind} {operation.name} ({operation.id}) is deleting what this needs",
                hint="choose another backup or moment",
            )
