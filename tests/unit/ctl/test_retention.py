"""`delete-pitr`, `cleanup`, `hold`, `policy`, and what `status` and `list` say of schedules."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from agent.wire.operations import Kind, State
from agent.wire.optime import OpTime
from agent.wire.schedule_state import Orphans, ScheduleState, TaskState
from agent.wire.settings import load_yaml
from agent.wire.timelines import Run
from ctl.output import Output
from tests.unit.ctl.world import NOW, Ctl, backup, operation

A, B, C = "2026-02-01T10:00:00Z", "2026-02-10T10:00:00Z", "2026-02-28T10:00:00Z"
STORAGE = "storage: {type: filesystem, filesystem: {path: /backups}}\n"
POLICY = (
    STORAGE
    + """
pitr: {enabled: true}
policy:
  timezone: Europe/Paris
  pitrWindow: 7d
  keep: {last: 1}
  backups:
    nightly: {schedule: "0 2 * * *"}
    shop: {schedule: "@hourly", ns: "shop.*", enabled: false}
"""
)


def at(name: str) -> int:
    return int(datetime.fromisoformat(name).timestamp())


@pytest.fixture
def stocked(ctl: Ctl) -> Ctl:
    """Three backups on one run that begins before them and reaches to now."""
    now = OpTime(T=int(NOW.timestamp()), I=1)
    ctl.world.backups = [backup(A), backup(B, hold="audit"), backup(C)]
    ctl.world.slice_runs = [
        Run(
            id="r",
            replset="rs0",
            start=OpTime(T=at(A) - 3600, I=1),
            end=now,
            covered_until=now,
            slices=10,
            size_bytes=10 << 20,
            removed_bytes=1 << 20,
            epoch=1,
        )
    ]
    return ctl


def test_delete_pitr_keeps_what_later_moments_are_carried_on_from(stocked: Ctl) -> None:
    answer = stocked("delete-pitr", "--older-than", "2026-02-20", "--dry-run", "-o", "json").json
    assert answer["slices"]["deleted"] == [{"replset": "rs0", "from": at(A) - 3600, "to": at(B)}]
    assert answer["slices"]["reason"] == f"they carry on from {B}, the base of PITR"
    assert not stocked.world.operations
    outcome = stocked("delete-pitr", "--older-than", "2026-02-20", "-y")
    assert "Later slices stay: they carry on from" in outcome.out
    made = stocked.world.operations[0]
    assert made.kind is Kind.DELETE_PITR
    assert made.spec["older_than"]["T"] == at("2026-02-20T00:00:00Z")


def test_delete_pitr_all_depends_on_whether_pitr_is_on(stocked: Ctl) -> None:
    flags = ("delete-pitr", "--all", "--dry-run", "-o", "json")
    assert stocked(*flags).json["slices"]["deleted"][0]["to"] == int(NOW.timestamp())
    stocked.world.settings = load_yaml(STORAGE + "pitr: {enabled: true}")
    assert stocked(*flags).json["slices"]["deleted"][0]["to"] == at(C)


@pytest.mark.parametrize("flags", [(), ("--all", "--older-than", "1d")])
def test_delete_pitr_wants_one_choice(stocked: Ctl, flags: tuple[str, ...]) -> None:
    assert stocked("delete-pitr", *flags).code == 2


def test_what_is_read_stays_and_says_so(stocked: Ctl) -> None:
    spec = {"backup": A, "time": {"T": at(B), "I": 1}}
    stocked.world.operations = [operation(Kind.RESTORE, "r1", spec=spec, state=State.RUNNING)]
    answer = stocked("cleanup", "--older-than", "0d", "--dry-run", "-o", "json").json
    kept = {item["name"]: item["reason"] for item in answer["kept"]}
    assert kept[A] == "restore r1 is reading it"
    assert answer["slices"]["floor"]["T"] == at(A)
    assert answer["slices"]["reason"] == "restore r1 is reading slices"


def test_cleanup_is_both_and_what_nothing_refers_to(stocked: Ctl) -> None:
    left = Orphans(first_seen=NOW - timedelta(hours=2), objects=7, size_bytes=1 << 20)
    stocked.world.schedule = ScheduleState(now=NOW, orphans={"backup x": left})
    outcome = stocked("cleanup", "--older-than", "2026-02-20", "--dry-run")
    assert A in outcome.out
    assert "on hold: audit" in outcome.out
    assert "7 objects, 1.0 MiB, first seen 2026-03-01T10:00:00Z" in outcome.out
    assert not stocked.world.operations
    assert stocked("cleanup", "--older-than", "2026-02-20").code == 3
    assert stocked("cleanup", "-y").code == 0
    made = stocked.world.operations[0]
    assert (made.kind, made.spec) == (Kind.CLEANUP, {"by_policy": False, "sweep": True})


def test_cleanup_reports_what_the_agents_did(stocked: Ctl) -> None:
    waiting = {"backup y": {"first_seen": "2026-03-01T10:00:00Z", "objects": 3}}
    stocked.world.becomes(
        1,
        state=State.DONE,
        result={
            "deleted": [{"name": A, "reason": "older than 2026-02-20T00:00:00Z"}],
            "kept": [{"name": C, "reason": "not older"}],
            "slices": {"objects": 12, "size": 4096},
            "swept": {"objects": 2, "size": 99, "writers": ["x"], "waiting": waiting},
            "objects": 30,
        },
    )
    outcome = stocked("cleanup", "--older-than", "2026-02-20", "-y", "--wait")
    assert outcome.code == 0, outcome.err
    for words in ("30 objects deleted", A, "Slices: 12, 4.0 KiB", "Leftovers: 2", "backup y"):
        assert words in outcome.out
    answer = stocked("cleanup", "--older-than", "2026-02-20", "-y", "--wait", "-o", "json").json
    assert answer["deleted"][0]["name"] == A
    assert answer["swept"]["objects"] == 2


@pytest.mark.parametrize("command", [("delete-pitr", "--all"), ("cleanup", "--older-than", "9d")])
def test_a_person_is_asked_and_may_say_no(
    stocked: Ctl, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Output, "is_interactive", True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    outcome = stocked(*command)
    assert (outcome.code, outcome.out) == (0, "nothing was deleted\n")
    assert not stocked.world.operations


def test_the_base_of_pitr_is_not_deleted_by_name(stocked: Ctl) -> None:
    stocked.world.settings = load_yaml(STORAGE + "pitr: {enabled: true}")
    stocked.world.backups = [backup(C)]
    outcome = stocked("delete-backup", C, "-y")
    assert outcome.code == 3
    assert "PITR needs the backup" in outcome.err
    stocked.world.backups.append(backup("2026-03-01T10:00:00Z"))
    outcome = stocked("delete-backup", C, "--dry-run")
    assert outcome.code == 0
    assert f"No longer restorable then: {C} to 2026-03-01T10:00:00Z" in outcome.out


def test_hold_and_release(stocked: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stocked("hold", A).code == 2
    assert stocked("hold", A, "why", "--release").code == 2
    assert stocked("hold", "nothing", "why").code == 4
    assert stocked("hold", A, "case 7").code == 0
    assert stocked.world.operations[0].spec == {"name": A, "hold": "case 7"}
    assert stocked("hold", B, "--release").code == 3, "what is held is released on purpose only"
    stocked.world.becomes(1, state=State.DONE)
    outcome = stocked("hold", B, "--release", "-y", "--wait")
    assert outcome.out == f"The backup {B} is no longer held\n"
    monkeypatch.setattr(Output, "is_interactive", True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert stocked("hold", B, "--release").out == "it is still held\n"


def test_policy_explains_each_backup_and_stretch(stocked: Ctl) -> None:
    stocked.world.settings = load_yaml(POLICY)
    answer = stocked("policy", "explain", "-o", "json").json
    found = {item["name"]: item for item in answer["backups"]}
    assert not found[A]["stays"]
    assert found[A]["reasons"] == ["no rule keeps it"]
    assert found[B]["reasons"] == [
        "on hold: audit",
        "the PITR window needs it as a base from 2026-02-22T12:00:00Z on",
    ]
    assert found[C]["reasons"][0] == "keep.last 1 of 1"
    # A nightly backup takes its place as the last one, and B is the base that is needed.
    assert found[C]["goes_about"] == at("2026-03-02T12:00:00Z")
    assert found[B]["goes_about"] is None
    assert [(s["stays"], s["from"], s["to"]) for s in answer["slices"]] == [
        (False, at(A) - 3600, at(B)),
        (True, at(B), int(NOW.timestamp())),
    ]
    text = stocked("policy", "explain").out
    assert "GOES" in text
    assert "> 400 days" in text
    assert max(map(len, text.splitlines())) <= 100


def test_without_a_policy_everything_stays(stocked: Ctl) -> None:
    assert "there is no policy" in stocked("policy").out
    answer = stocked("policy", "explain", "-o", "json").json
    assert {item["stays"] for item in answer["backups"]} == {True}
    assert answer["is_retaining"] is False


def test_what_runs_next_is_shown(stocked: Ctl) -> None:
    stocked.world.settings = load_yaml(POLICY)
    handled = NOW - timedelta(hours=11)
    stocked.world.schedule = ScheduleState(
        now=NOW,
        tasks={"nightly": TaskState(handled=handled, outcome="caught up", op_id="x", missed=2)},
    )
    shop, nightly = sorted(
        stocked("policy", "-o", "json").json["runs"], key=lambda r: r["in_s"] or 0
    )
    assert nightly["next"] == at("2026-03-02T01:00:00Z")
    assert nightly["in_s"] == 13 * 3600
    assert (nightly["last_outcome"], nightly["missed"]) == ("caught up", 2)
    assert shop["next"] is None
    text = stocked("status", "-s", "policy").out
    assert "nightly: next 2026-03-02T01:00:00Z (in 13h00m), last caught up" in text
    assert "Keeps 1 last; every moment of the last 7d00h" in text
    assert "nightly: 2026-03-02T01:00:00Z" in stocked("list").out
    assert stocked("list", "-o", "json").json["next_runs"][0]["schedule"] == "nightly"
    assert stocked("status", "-o", "json").json["policy"]["keep"] == {"last": 1}


def test_slices_that_are_gone_do_not_count(stocked: Ctl) -> None:
    assert "Slices: 9.0 MiB" in stocked("status", "-s", "pitr").out


@pytest.mark.parametrize(
    "pair",
    [
        "policy.backups.nightly.schedule=never",
        "policy.backups.a b.schedule=@daily",
        "policy.backups.nightly.enabled=true",
        "policy.timezone=Mars/Olympus",
        "policy.keep.last=-1",
        "policy.pitrWindow=0",
        "policy.keep.hourly=3",
        "policy.backups.nightly.cron=@daily",
    ],
)
def test_a_wrong_policy_is_refused(ctl: Ctl, pair: str) -> None:
    assert ctl("config", "--set", pair).code == 2
    assert ctl.world.version == 1


def test_a_policy_is_set_key_by_key(ctl: Ctl) -> None:
    pairs = ("policy.backups.nightly.schedule=0 2 * * *", "policy.backups.nightly.ns=shop.*,a.b")
    assert ctl("config", "--set", pairs[0], "--set", pairs[1]).code == 0
    task = ctl.world.settings.policy.backups["nightly"]
    assert (task.schedule, task.ns) == ("0 2 * * *", ("shop.*", "a.b"))
    assert ctl("config", "policy.backups.nightly.missed").out == "run\n"
    assert ctl("config", "--unset", "policy.backups.nightly").code == 0
    assert not ctl.world.settings.policy.backups
