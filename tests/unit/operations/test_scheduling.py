"""The scheduler's decisions: on time, late, colliding, and when to clean up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.operations.scheduling import (
    after,
    backup_spec,
    cleanup_reason,
    operation_id,
    requester,
    steps,
    trim_every,
    wanted,
)
from agent.wire.operations import HistoryEntry, Kind, Operation, State
from agent.wire.optime import OpTime
from agent.wire.policy import BackupSchedule, PolicySettings
from agent.wire.schedule_state import ScheduleState, TaskState
from agent.wire.timelines import Span
from tests.unit.ctl.world import backup, operation

NOW = datetime(2026, 5, 1, 2, 0, 5, tzinfo=UTC)
ON = datetime(2026, 5, 1, 2, 0, tzinfo=UTC)


def policy(**task: Any) -> PolicySettings:
    return PolicySettings.model_validate(
        {"backups": {"nightly": {"schedule": "0 2 * * *", **task}}}
    )


def state(
    handled: datetime | None = ON - timedelta(days=1), now: datetime = NOW, **more: Any
) -> ScheduleState:
    tasks = {} if handled is None else {"nightly": TaskState(handled=handled)}
    return ScheduleState(now=now, tasks=tasks, **more)


def running(kind: Kind = Kind.RESTORE, **changes: Any) -> Operation:
    return operation(kind, "busy", state=State.RUNNING, **changes)


def test_a_new_schedule_begins_at_its_next_moment() -> None:
    (step,) = steps(policy(), state(None), [])
    assert (step.outcome, step.moment, step.runs) == ("begun", NOW, False)
    known = after(step, None, None)
    assert steps(policy(), ScheduleState(now=NOW, tasks={"nightly": known}), []) == []


def test_on_time_it_runs_once() -> None:
    (step,) = steps(policy(), state(), [])
    assert (step.outcome, step.moment) == ("submitted", ON)
    known = after(step, None, "op")
    assert known == TaskState(handled=ON, outcome="submitted", op_id="op")
    assert steps(policy(), ScheduleState(now=NOW, tasks={"nightly": known}), []) == []


def test_missed_runs_are_caught_up_by_one_or_skipped() -> None:
    late = state(ON - timedelta(days=4), NOW + timedelta(hours=3))
    (step,) = steps(policy(), late, [])
    assert (step.outcome, step.moment, step.missed) == ("caught up", ON, 3)
    (step,) = steps(policy(missed="skip"), late, [])
    assert (step.outcome, step.runs, step.missed) == ("missed", False, 4)


def test_a_run_that_collides_waits_or_is_left_out() -> None:
    (step,) = steps(policy(), state(), [running()])
    assert step.outcome == "submitted"
    (step,) = steps(policy(collision="skip"), state(), [running()])
    assert (step.outcome, step.reason) == ("skipped", "restore busy is in progress")
    (step,) = steps(policy(collision="skip"), state(), [running(Kind.CLEANUP)])
    assert step.outcome == "submitted"


@pytest.mark.parametrize("rule", ["queue", "skip"])
def test_two_runs_of_one_schedule_never_overlap(rule: str) -> None:
    own = running(Kind.BACKUP, requested_by=requester("nightly"))
    (step,) = steps(policy(collision=rule), state(), [own])
    assert (step.outcome, step.reason) == ("skipped", "its last run, backup busy, is not over")


def test_a_pause_is_not_caught_up() -> None:
    (step,) = steps(policy(enabled=False), state(ON - timedelta(days=9)), [])
    assert (step.outcome, step.moment, step.missed) == ("skipped", ON, 0)


def test_a_moment_of_a_schedule_is_one_operation() -> None:
    assert operation_id("nightly", ON) == operation_id("nightly", ON)
    assert len({operation_id(n, ON + timedelta(days=d)) for n in "ab" for d in range(3)}) == 6
    assert len(operation_id("nightly", ON)) == 24


def test_a_schedule_s_backup_is_what_ctl_backup_would_ask_for() -> None:
    task = BackupSchedule.model_validate(
        {"schedule": "@daily", "ns": "a.b", "compression": "gzip", "hold": "legal"}
    )
    spec = backup_spec(task)
    assert (spec.ns, spec.compression, spec.hold, spec.profile) == (
        ("a.b",),
        "zstd",
        "legal",
        "main",
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=30), st.sampled_from(["run", "skip"]))
def test_however_often_it_looks_each_moment_is_dealt_with_once(
    gaps: list[int], missed: str
) -> None:
    """Looks come minutes apart, as agents live and die."""
    rules = PolicySettings.model_validate(
        {"backups": {"nightly": {"schedule": "*/30 * * * *", "missed": missed}}}
    )
    known, now = TaskState(handled=ON), ON
    ran: list[datetime] = []
    skipped = 0
    for gap in gaps:
        now += timedelta(minutes=gap)
        for step in steps(rules, ScheduleState(now=now, tasks={"nightly": known}), []):
            assert step.moment <= now
            skipped += step.missed
            known = after(step, known, None)
            ran += [step.moment] if step.runs else []
    assert ran == sorted(set(ran))
    assert len(ran) + skipped == int((now - ON) / timedelta(minutes=30))
    assert known.missed == skipped


RETAINING = PolicySettings.model_validate({"keep": {"last": 1}, "pitrWindow": "1h"})
SWEPT = {"swept_at": NOW}


def test_a_superfluous_backup_is_reason_enough() -> None:
    backups = [backup("2026-04-28T10:00:00Z"), backup("2026-04-29T10:00:00Z")]
    reason = cleanup_reason(RETAINING, state(**SWEPT), backups, [], [])
    assert reason == "the policy keeps 2026-04-28T10:00:00Z no longer"
    assert cleanup_reason(PolicySettings(), state(**SWEPT), backups, [], []) is None
    soon = state(**SWEPT, cleaned_at=NOW - timedelta(seconds=30))
    assert cleanup_reason(RETAINING, soon, backups, [], []) is None
    busy = [running(Kind.CLEANUP)]
    assert cleanup_reason(RETAINING, state(**SWEPT), backups, [], busy) is None


def test_slices_go_a_tenth_of_the_window_apart() -> None:
    assert trim_every(RETAINING) == timedelta(minutes=6)
    assert trim_every(PolicySettings(pitr_window=86400 * 30)) == timedelta(hours=6)
    assert trim_every(PolicySettings(pitr_window=60)) == timedelta(minutes=1)
    spans = [Span(start=OpTime(T=0, I=0), end=OpTime(T=int(NOW.timestamp()), I=0))]
    due = state(**SWEPT, cleaned_at=NOW - timedelta(minutes=7))
    assert "no longer kept" in (cleanup_reason(RETAINING, due, [], spans, []) or "")
    early = state(**SWEPT, cleaned_at=NOW - timedelta(minutes=5))
    assert cleanup_reason(RETAINING, early, [], spans, []) is None


def test_a_backup_that_failed_is_cleared_away_soon_and_once() -> None:
    failed = operation(
        Kind.BACKUP,
        "bad",
        state=State.FAILED,
        finished_at=NOW - timedelta(seconds=70),
        history=(HistoryEntry(at=NOW, state="running"),),
    )
    before = {"swept_at": NOW - timedelta(minutes=9)}
    reason = cleanup_reason(PolicySettings(), state(**before), [], [], [failed])
    assert reason == "backup bad was failed"
    early = failed.model_copy(update={"finished_at": NOW - timedelta(seconds=50)})
    assert cleanup_reason(PolicySettings(), state(**before), [], [], [early]) is None
    assert cleanup_reason(PolicySettings(), state(**SWEPT), [], [], [failed]) is None


def test_a_sweep_comes_once_a_grace() -> None:
    old = {"swept_at": NOW - timedelta(days=1, seconds=1)}
    assert cleanup_reason(PolicySettings(), state(**old), [], [], []) == "a sweep is due"
    assert cleanup_reason(PolicySettings(), state(**SWEPT), [], [], []) is None


def verifying(**task: Any) -> PolicySettings:
    return PolicySettings.model_validate({"verify": {"weekly": {"schedule": "0 2 * * *", **task}}})


def test_verifications_have_schedules_of_their_own() -> None:
    before = ScheduleState(
        now=NOW, tasks={"verify:weekly": TaskState(handled=ON - timedelta(days=1))}
    )
    (step,) = steps(verifying(), before, [running(Kind.BACKUP)])
    assert (step.task, step.outcome, step.moment) == ("verify:weekly", "submitted", ON)
    own = running(Kind.VERIFY, requested_by=requester(step.task))
    (step,) = steps(verifying(), before, [own])
    assert (step.outcome, step.reason) == ("skipped", "its last run, verify busy, is not over")
    (step,) = steps(verifying(enabled=False), before, [])
    assert step.reason == "it is paused"


@pytest.mark.parametrize(
    ("level", "kind", "spec"),
    [
        ("present", Kind.VERIFY, {"deep": False}),
        ("deep", Kind.VERIFY, {"deep": True, "max_age_s": 3 * 86400.0}),
        ("restore", Kind.PROVE, {"name": "b7"}),
    ],
)
def test_a_verification_asks_for_what_its_level_says(
    level: str, kind: Kind, spec: dict[str, Any]
) -> None:
    task = verifying(level=level, maxAge="3d").tasks["verify:weekly"]
    asked = wanted(task, "b7")
    assert asked is not None
    assert asked[0] is kind
    assert asked[1] == {**asked[1], **spec}


def test_without_a_full_backup_nothing_is_proven() -> None:
    assert wanted(verifying(level="restore").tasks["verify:weekly"], None) is None


def test_a_backup_and_a_verification_may_have_the_same_name() -> None:
    both = PolicySettings.model_validate(
        {
            "backups": {"nightly": {"schedule": "@daily"}},
            "verify": {"nightly": {"schedule": "@weekly"}},
        }
    )
    assert set(both.tasks) == {"nightly", "verify:nightly"}
    assert requester("nightly") != requester("verify:nightly")
    assert operation_id("nightly", ON) != operation_id("verify:nightly", ON)
