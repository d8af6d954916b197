"""Waiting: what is told meanwhile, and how it ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent.errors import StoreUnavailable
from agent.wire.operations import Progress, State
from ctl.progress import Rate
from tests.unit.ctl.world import LEAD, NOW, Ctl, backup, failure, node, part

NAME = "2026-03-01T12:00:01Z"


def _progress(done: int, total: int = 100 << 20, stage: str = "reading") -> Progress:
    return Progress(stage=stage, bytes_done=done, bytes_total=total, documents_done=done >> 10)


def _done(ctl: Ctl, after_s: float = 3) -> None:
    published = backup(NAME, op_id=f"{1:024x}")

    def publish(elapsed: float) -> None:
        if elapsed >= after_s and not ctl.world.backups:
            ctl.world.backups.append(published)

    ctl.world.clock.on_sleep = publish
    ctl.world.becomes(after_s, state=State.DONE, finished_at=NOW + timedelta(seconds=12))


def test_the_result_comes_after_the_end(ctl: Ctl) -> None:
    _done(ctl)
    outcome = ctl("backup", "--wait")
    assert outcome.code == 0
    assert f"Backup {NAME} done in 12 s: 12.0 MiB (40.0 MiB uncompressed)" in outcome.out
    assert "in file:///backups" in outcome.out
    assert f"backup {NAME}: requested" in outcome.err


def test_the_json_result_is_as_the_contract_has_it(ctl: Ctl) -> None:
    _done(ctl)
    answer = ctl("backup", "-w", "-o", "json").json
    assert answer == {
        "name": NAME,
        "op_id": f"{1:024x}",
        "status": "done",
        "profile": "main",
        "storage_path": "file:///backups",
        "first_write": {"T": 1772366392, "I": 1},
        "last_write": {"T": 1772366401, "I": 3},
        "size": 12 << 20,
        "size_uncompressed": 40 << 20,
    }


def test_lines_come_where_something_changed_and_every_ten_seconds(ctl: Ctl) -> None:
    _done(ctl, 26)
    for second in range(1, 25):
        share = part(progress=_progress(second << 20))
        ctl.world.becomes(second, state=State.RUNNING, parts=(share,))
    ctl.world.becomes(25, parts=(part(progress=_progress(90 << 20, stage="oplog")),))
    _done_at_last(ctl, 26)
    lines = ctl("backup", "--wait").err.splitlines()
    assert len(lines) == 5, lines
    assert lines[0].endswith(": requested")
    assert ": rs0 reading, 1.0/100.0 MiB, 1,024 documents" in lines[1]
    assert "11.0/100.0 MiB, 11,264 documents, 1.0 MiB/s ETA 1m" in lines[2]
    assert "21.0/100.0 MiB" in lines[3]
    assert "rs0 oplog, 90.0/100.0 MiB" in lines[4]


def _done_at_last(ctl: Ctl, after_s: float) -> None:
    ctl.world.backups.append(backup(NAME))
    ctl.world.becomes(after_s, state=State.DONE)


def _steps(ctl: Ctl, *steps: tuple[float, Any]) -> None:
    before = ctl.world.clock.on_sleep
    left = list(steps)

    def act(elapsed: float) -> None:
        before(elapsed)
        while left and elapsed >= left[0][0]:
            left.pop(0)[1]()

    ctl.world.clock.on_sleep = act


@pytest.mark.story("F9", "PBM-1586", "PBM-1648", "PBM-1574")
def test_a_dead_lead_is_noticed_and_so_is_its_successor(ctl: Ctl) -> None:
    world = ctl.world
    _done(ctl, 90)
    world.becomes(1, state=State.RUNNING, lead_node="rs0/h1:27017", parts=(part(node=None),))
    world.becomes(90, state=State.DONE)

    def die() -> None:
        world.nodes = [node(age_s=20), node("h2:27017")]
        world.leases = []

    def return_() -> None:
        world.leases = [LEAD]

    _steps(ctl, (5, die), (50, return_))
    outcome = ctl("backup", "--wait")
    assert outcome.code == 0
    told = [line for line in outcome.err.splitlines() if "the lead" in line]
    assert len(told) == 2, outcome.err
    assert "the lead rs0/h1:27017 is dead, it answered 20 s ago" in told[0]
    assert "(30 s)" in told[1]
    assert outcome.err.count("it goes on") == 1


def test_a_primary_that_steps_down_is_waited_for(ctl: Ctl) -> None:
    world = ctl.world
    _done(ctl, 40)

    def cut() -> None:
        world.unreachable = StoreUnavailable("reading the operation: not primary")

    def mend() -> None:
        world.unreachable = None

    _steps(ctl, (5, cut), (30, mend))
    outcome = ctl("backup", "--wait")
    assert outcome.code == 0
    assert outcome.err.count("not primary; trying on") == 1


def test_a_database_that_stays_away_ends_the_waiting(ctl: Ctl) -> None:
    def cut() -> None:
        ctl.world.unreachable = StoreUnavailable("reading the operation: no primary")

    _steps(ctl, (5, cut))
    assert ctl("backup", "--wait").code == 5
    assert 120 <= ctl.world.clock.now - 1000 < 130


def test_wait_time_implies_waiting(ctl: Ctl) -> None:
    _done(ctl, 3)
    assert ctl("backup", "--wait-time", "1m", "-o", "json").json["status"] == "done"


def test_a_cancelled_operation_is_no_success(ctl: Ctl) -> None:
    ctl.world.becomes(1, state=State.CANCELLED)
    outcome = ctl("backup", "--wait")
    assert outcome.code == 1
    assert "was cancelled" in outcome.err


def test_the_hint_of_a_failure_is_its_own_or_the_logs(ctl: Ctl) -> None:
    ctl.world.becomes(1, state=State.FAILED, error=failure(hint="make room"))
    assert "Hint: make room" in ctl("backup", "--wait").err
    ctl.world.operations.clear()
    ctl.world.becomes(1, state=State.FAILED, error=failure())
    assert "Hint: 'ctl logs -i " in ctl("backup", "--wait").err
    ctl.world.operations.clear()
    ctl.world.becomes(1, state=State.FAILED, error=None)
    assert "left no reason" in ctl("backup", "--wait").err


def _rate_after(*readings: tuple[float, Progress]) -> float | None:
    rate = Rate()
    for now, amounts in readings:
        rate.add(now, amounts)
    return rate.bytes_s


def test_the_rate_is_of_the_last_seconds_of_one_stage() -> None:
    steady = [(float(second), _progress(second * 10)) for second in range(100)]
    faster = [(100.0 + second, _progress(990 + second * 20)) for second in range(30)]
    assert _rate_after(*steady) == 10
    assert _rate_after(*steady, *faster) == 20
    next_stage = [(130.0 + second, _progress(second * 2, stage="oplog")) for second in (0, 1)]
    assert _rate_after(*steady, *next_stage) == 2
    assert _rate_after(*steady, next_stage[0]) is None
    taken_over = (131.0, _progress(1))
    assert _rate_after(*steady, taken_over) is None
    assert _rate_after() is None


def test_the_time_left_needs_a_rate_and_a_total() -> None:
    rate = Rate()
    assert rate.left_s(_progress(0)) is None
    rate.add(0.0, _progress(0))
    rate.add(10.0, _progress(100))
    assert rate.left_s(_progress(100, total=1100)) == 100
    assert rate.left_s(_progress(100, total=0)) is None
