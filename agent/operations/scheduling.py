"""What the scheduler has to do at a moment: one pure function of settings and memory.

Each schedule remembers the latest moment that was dealt with. When a later one has come, it is run
if it is on time, or if missed runs are caught up; of several that passed, one at most is run. A run
is left out while the last one of the same schedule is not over, and, where the settings say so,
while any other operation is in progress. The operation that a moment asks for has an id made of the
schedule and the moment: whoever asks twice, asks once.

Retention is asked for when a backup has become superfluous, and now and then for slices: a tenth of
the window apart, at most six hours, at least a minute. A sweep is asked for once a grace, and soon
after a backup failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from agent.operations.removal.sweep import ABANDONED_AFTER
from agent.wire.backups import Backup
from agent.wire.compression import stored_compression
from agent.wire.operations import Kind, Operation, State
from agent.wire.policy import VERIFICATION, BackupSchedule, PolicySettings, VerifySchedule
from agent.wire.retention import copy_of, decide, readings, rules_of
from agent.wire.schedule_state import ScheduleState, TaskState
from agent.wire.schedules import due
from agent.wire.specs import BackupSpec, ProveSpec, VerifySpec
from agent.wire.timelines import Span

ON_TIME: Final = timedelta(seconds=90)
"""Whoever takes over from a scheduler that died is not late."""
MOST_OFTEN: Final = timedelta(minutes=1)
LEAST_OFTEN: Final = timedelta(hours=6)
DAILY: Final = timedelta(days=1)

Outcome = Literal["begun", "submitted", "caught up", "skipped", "missed"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a schedule's latest moment asks for."""

    task: str
    moment: datetime
    outcome: Outcome
    reason: str = ""
    missed: int = 0
    """Moments that passed without a run, this one included where it was."""

    @property
    def runs(self) -> bool:
        """Whether an operation is to be asked for."""
        return self.outcome in ("submitted", "caught up")


def steps(policy: PolicySettings, state: ScheduleState, active: Sequence[Operation]) -> list[Step]:
    """What is to be done about the schedules now."""
    found = []
    for name, task in sorted(policy.tasks.items()):
        step = _step(name, task, policy, state, active)
        if step is not None:
            found.append(step)
    return found


def _step(
    name: str,
    task: BackupSchedule | VerifySchedule,
    policy: PolicySettings,
    state: ScheduleState,
    active: Sequence[Operation],
) -> Step | None:
    known = state.tasks.get(name)
    if known is None:
        return Step(name, state.now, "begun")
    come = due(task.schedule, policy.zone, known.handled, state.now)
    if come is None:
        return None
    if not task.enabled:
        return Step(name, come.latest, "skipped", "it is paused")
    is_late = state.now - come.latest > ON_TIME
    if is_late and task.missed == "skip":
        return Step(name, come.latest, "missed", "no agent was there", come.earlier + 1)
    own = next((op for op in active if op.requested_by == requester(name)), None)
    if own is not None:
        words = f"its last run, {own.kind} {own.name}, is not over"
        return Step(name, come.latest, "skipped", words, come.earlier)
    other = next((op for op in active if op.kind.is_exclusive), None)
    if other is not None and isinstance(task, BackupSchedule) and task.collision == "skip":
        words = f"{other.kind} {other.name} is in progress"
        return Step(name, come.latest, "skipped", words, come.earlier)
    return Step(name, come.latest, "caught up" if is_late else "submitted", "", come.earlier)


def after(step: Step, before: TaskState | None, op_id: str | None) -> TaskState:
    """What is remembered of a step."""
    missed = (before.missed if before is not None else 0) + step.missed
    return TaskState(handled=step.moment, outcome=step.outcome, op_id=op_id, missed=missed)


def requester(task: str) -> str:
    """Who asks for what a schedule wants: the setting that says so."""
    if task.startswith(VERIFICATION):
        return f"policy.verify.{task.removeprefix(VERIFICATION)}"
    return f"policy.backups.{task}"


def operation_id(task: str, moment: datetime) -> str:
    """The one operation that a schedule's moment asks for."""
    text = f"{task} {moment.isoformat()}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def backup_spec(task: BackupSchedule) -> BackupSpec:
    """What a schedule asks for."""
    return BackupSpec(
        ns=task.ns,
        exclude_ns=task.exclude_ns,
        with_users_and_roles=task.with_users_and_roles,
        compression=stored_compression(task.compression) if task.compression else None,
        compression_level=task.compression_level,
        profile=task.profile,
        hold=task.hold,
    )


def wanted(
    task: BackupSchedule | VerifySchedule, newest: str | None
) -> tuple[Kind, dict[str, Any]] | None:
    """The operation that a schedule asks for; None where it needs a full backup, the `newest`, and
    there is none."""
    if isinstance(task, BackupSchedule):
        return Kind.BACKUP, backup_spec(task).to_document()
    if task.level == "restore":
        return None if newest is None else (Kind.PROVE, ProveSpec(name=newest).to_document())
    spec = VerifySpec(deep=task.level == "deep", max_age_s=task.max_age)
    return Kind.VERIFY, spec.to_document()


def cleanup_reason(
    policy: PolicySettings,
    state: ScheduleState,
    backups: Sequence[Backup],
    spans: Sequence[Span],
    operations: Sequence[Operation],
) -> str | None:
    """Why a cleanup is due now; None if it is not. `operations` are the recent ones too."""
    if any(op.kind is Kind.CLEANUP and not op.state.is_terminal for op in operations):
        return None
    since = state.now - state.cleaned_at if state.cleaned_at is not None else None
    if since is not None and since < MOST_OFTEN:
        return None
    failed = _unswept(state, operations)
    if failed is not None:
        return f"backup {failed.name} was {failed.state}"
    if policy.is_retaining:
        copies = [copy_of(backup) for backup in backups]
        active = [op for op in operations if not op.state.is_terminal]
        moments = {copy.name: copy.at for copy in copies}
        reading = readings(active, moments)
        decision = decide(copies, spans, rules_of(policy, state.now), reading)
        if decision.going:
            return f"the policy keeps {', '.join(decision.going[:3])} no longer"
        floor = decision.floor
        is_time = since is None or since >= trim_every(policy)
        if is_time and floor is not None and any(span.start < floor for span in spans):
            return f"slices before {floor.in_words()} are no longer kept"
    every = min(timedelta(seconds=policy.sweep_grace), DAILY)
    if state.swept_at is not None and state.now - state.swept_at >= max(every, MOST_OFTEN):
        return "a sweep is due"
    return None


def trim_every(policy: PolicySettings) -> timedelta:
    """How far apart slices are removed: so much longer than promised one may stay."""
    window = timedelta(seconds=policy.pitr_window or LEAST_OFTEN.total_seconds() * 10)
    return min(max(window / 10, MOST_OFTEN), LEAST_OFTEN)


def _unswept(state: ScheduleState, operations: Sequence[Operation]) -> Operation | None:
    """A backup that ended badly since the last sweep, long enough ago."""
    for operation in operations:
        if operation.kind is not Kind.BACKUP or operation.finished_at is None:
            continue
        if operation.state not in (State.FAILED, State.CANCELLED):
            continue
        due_from = operation.finished_at + ABANDONED_AFTER
        is_new = state.swept_at is None or state.swept_at < due_from
        if is_new and due_from <= state.now:
            return operation
    return None
