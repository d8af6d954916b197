"""The verdict: safe is said of nothing else, and each fault has its finding."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.wire.operations import Kind, State
from agent.wire.overview import Overview
from agent.wire.safety import Level, assess, proofs
from agent.wire.settings import Settings, from_mapping
from agent.wire.timelines import Gap, GapCause
from agent.wire.verdicts import Level as Found
from agent.wire.verdicts import Verdict
from tests.support.overviews import (
    DAY,
    NOW_T,
    a_backup,
    a_node,
    a_run,
    a_running_backup,
    an_operation,
    at,
    good,
    optime,
)


def codes(overview: Overview) -> set[str]:
    return {finding.code for finding in assess(overview).findings}


def test_a_cluster_that_is_well_is_safe() -> None:
    found = assess(good(), age_s=2.0)
    assert (found.level, found.findings) == (Level.SAFE, ())
    assert found.restorable_until == optime(8)
    assert found.rpo_s == 10.0


def test_a_harmed_backup_is_said_and_more_so_when_it_is_the_newest() -> None:
    harmed = Verdict(level=Found.READ, harmed=1, problems=("gone",))
    *older, newest = good().backups
    bad = newest.model_copy(update={"verdict": harmed})
    found = assess(good(backups=(*older, bad)))
    assert (found.level, "backup-harmed" in codes(good(backups=(*older, bad)))) == (
        Level.UNSAFE,
        True,
    )
    first = older[0].model_copy(update={"verdict": harmed})
    assert assess(good(backups=(first, *older[1:], newest))).level is Level.RISK


def test_without_anything_nothing_can_be_restored() -> None:
    found = assess(good(backups=(), runs=(), recent=()))
    assert (found.level, found.rpo_s) == (Level.UNSAFE, math.inf)
    assert found.restorable_until is None


def test_without_slices_the_newest_full_backup_is_the_limit() -> None:
    backups = (a_backup(900), a_backup(100, ns=("shop.orders",)))
    settings = from_mapping({"storage": {"type": "filesystem", "filesystem": {"path": "/b"}}})
    found = assess(good(backups=backups, runs=(), settings=settings))
    assert found.restorable_until == optime(900)
    assert found.level is Level.SAFE


@pytest.mark.parametrize(
    ("code", "level", "overview"),
    [
        ("no-storage", Level.UNSAFE, good(settings=Settings())),
        ("no-backup", Level.UNSAFE, good(backups=(), recent=())),
        ("backup-too-old", Level.RISK, good(backups=(a_backup(1.2 * DAY),))),
        (
            "backup-failed",
            Level.RISK,
            good(recent=(an_operation(Kind.BACKUP, 660, state=State.FAILED),)),
        ),
        ("base-missing", Level.UNSAFE, good(runs=(a_run("config", 900, 8),))),
        ("archiving-late", Level.UNSAFE, good(runs=(a_run("config", 12.1 * DAY, 200),))),
        ("archiving-error", Level.RISK, good(runs=(a_run("config", 12.1 * DAY, 8, error="x"),))),
        ("no-slicer", Level.RISK, good(leases={})),
        ("storage-unusable", Level.UNSAFE, good(nodes=(a_node("config", "h", storage_error="x"),))),
        (
            "storage-worry",
            Level.RISK,
            good(nodes=(a_node("config", "h", storage_warnings={"main": "x"}),)),
        ),
        ("replset-without-agents", Level.UNSAFE, good(nodes=(a_node("config", "h", age_s=60),))),
        ("node-excluded", Level.RISK, good(nodes=(a_node("config", "h", lag_s=90.0),))),
        (
            "operation-stuck",
            Level.RISK,
            good(active=(a_running_backup().model_copy(update={"updated_at": at(4000)}),)),
        ),
    ],
)
def test_a_fault_is_found(code: str, level: Level, overview: Overview) -> None:
    found = [finding for finding in assess(overview).findings if finding.code == code]
    assert [finding.level for finding in found] == [level]
    assert assess(overview).level >= level


def test_a_hole_is_news_for_a_day_unless_somebody_chose_it() -> None:
    gap = Gap(
        replset="shard-a", start=optime(90), end=optime(50), cause=GapCause.OVERRUN, at=at(40)
    )
    assert "gap" in codes(good(gaps=(gap,)))
    assert "gap" not in codes(good(gaps=(gap.model_copy(update={"at": at(1.1 * DAY)}),)))
    chosen = gap.model_copy(update={"cause": GapCause.RESTORE})
    assert "gap" not in codes(good(gaps=(chosen,)))


def test_a_base_taken_after_the_last_slice_is_a_base() -> None:
    """It was just published, and the next slice will reach past it."""
    runs = tuple(a_run(run.replset, 900, 8) for run in good().runs)
    assert "base-missing" not in codes(good(runs=runs, backups=(a_backup(2),)))


def test_a_failed_backup_is_forgotten_with_the_next_good_one() -> None:
    failed = an_operation(Kind.BACKUP, 3 * DAY, state=State.FAILED)
    assert "backup-failed" not in codes(good(recent=(failed,)))


def test_nobody_has_to_slice_while_something_is_restored() -> None:
    restoring = an_operation(Kind.RESTORE, 60, state=State.RUNNING, updated_at=at(1))
    assert "no-slicer" not in codes(good(leases={}, active=(restoring,)))


def test_only_a_restore_that_was_made_proves_its_backup() -> None:
    spec = {"backup": "b"}
    made = an_operation(Kind.RESTORE, 5000, spec=spec)
    assert proofs(good(recent=(made,))) == {"b": made.finished_at}
    dry = an_operation(Kind.RESTORE, 5000, spec={**spec, "dry_run": True})
    failed = an_operation(Kind.RESTORE, 5000, spec=spec, state=State.FAILED)
    assert proofs(good(recent=(dry, failed))) == {}


def test_the_older_the_reading_the_greater_the_loss() -> None:
    assert assess(good(), age_s=100).rpo_s == pytest.approx(108)
    assert assess(good(), age_s=100).level is Level.UNSAFE
    assert replace(good(), now=optime(0)).now.T == NOW_T
