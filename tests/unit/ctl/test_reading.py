"""`list`, `status`, `describe-*`, `logs`: what is known, in both forms."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from agent.wire.events import Event
from agent.wire.leases import Lease
from agent.wire.nodes import Role
from agent.wire.operations import HistoryEntry, Kind, State
from agent.wire.settings import Settings, load_yaml
from tests.unit.ctl.world import NOW, Ctl, Outcome, backup, failure, node, operation, part

OLD, NEW = "2026-02-01T10:00:00Z", "2026-02-28T10:00:00Z"


def _fits(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.err
    assert max(len(line) for line in outcome.out.splitlines()) <= 100, outcome.out
    assert "\x1b" not in outcome.out


def test_list_as_the_contract_has_it(ctl: Ctl) -> None:
    ctl.world.backups = [backup(NEW), backup(OLD, ns=("a.b",))]
    answer = ctl("list", "-o", "json").json
    assert answer["pitr"] == {
        "on": False,
        "ranges": [],
        "gaps": [],
        "lag_s": None,
        "error": None,
    }
    assert [item["name"] for item in answer["snapshots"]] == [OLD, NEW]
    wanted = (
        *("name", "status", "type", "profile", "selective", "base", "restoreTo", "last_write"),
        *("size", "size_uncompressed", "mongodb_version", "error"),
    )
    assert set(wanted) <= set(answer["snapshots"][0])
    assert answer["snapshots"][0]["selective"] is True
    assert answer["snapshots"][1]["restoreTo"] == answer["snapshots"][1]["last_write"]["T"]
    assert answer["snapshots"][1]["status"] == "done"


def test_list_in_text(ctl: Ctl) -> None:
    ctl.world.backups = [backup(NEW), backup(OLD)]
    outcome = ctl("list", "--full", "--replset-remapping", "a=b")
    _fits(outcome)
    lines = outcome.out.splitlines()
    assert lines[1].split()[:2] == ["NAME", "SIZE"]
    assert lines[2].startswith(f"  {OLD}  12.0 MiB  20")
    assert "SELECTIVE" not in lines[1], "what would be the same of all is left out"
    assert f"  {NEW}: rs0" in lines
    assert ctl("list", "--size", "1", "-o", "json").json["snapshots"][0]["name"] == NEW
    assert ctl("list", "--profile", "other").code == 4, "there is no such profile"


def test_a_column_is_shown_where_it_tells_backups_apart(ctl: Ctl) -> None:
    ctl.world.backups = [backup(NEW), backup(OLD, ns=("a.b",))]
    heads, old, new = ctl("list").out.splitlines()[1:4]
    assert heads.split()[2] == "SELECTIVE"
    assert (old.split()[3], new.split()[3]) == ("yes", "no")


def test_list_of_restores_knows_operations_and_records(ctl: Ctl) -> None:
    ctl.world.operations = [
        operation(Kind.RESTORE, "r1", id="1" * 24, spec={"backup": NEW}, state=State.DONE),
        operation(Kind.RESTORE, "dry", id="2" * 24, spec={"backup": NEW, "dry_run": True}),
    ]
    recorded = {
        "op_id": "3" * 24,
        "requested_at": NOW - timedelta(days=9),
        "state": "failed",
        "spec": {"backup": OLD, "time": {"T": 7, "I": 1}},
        "error": {"type": "RestoreFailed", "message": "duplicate key in shop.orders, index u_1"},
    }
    ctl.world.restores = [
        {"_id": "r0", **recorded},
        {"_id": "r1", **recorded, "op_id": "1" * 24},
        {"_id": "strange"},
    ]
    answer = ctl("list", "--restore", "-o", "json").json
    assert [item["name"] for item in answer] == ["r0", "r1"]
    assert answer[0]["type"] == "pitr"
    assert answer[1]["snapshot"] == NEW
    outcome = ctl("list", "--restore")
    _fits(outcome)
    assert "failed: duplicate key" in outcome.out
    assert ctl("list", "--restore", "--size", "1", "-o", "json").json[0]["name"] == "r1"


def test_status_as_the_contract_has_it(ctl: Ctl) -> None:
    running = operation(
        state=State.RUNNING,
        parts=(part(),),
        history=(HistoryEntry(at=NOW - timedelta(seconds=64), state="running"),),
    )
    failed = operation(name="bad", id="9" * 24, state=State.FAILED, error=failure())
    ctl.world.operations = [failed, running]
    ctl.world.backups = [backup(NEW)]
    ctl.world.nodes.append(node("h2:27017", role=Role.PRIMARY, storage_error="no space", age_s=99))
    answer = ctl("status", "-o", "json").json
    assert list(answer) == ["cluster", "pitr", "running", "policy", "backups"]
    assert answer["cluster"][0]["rs"] == "rs0"
    first, second = answer["cluster"][0]["nodes"]
    keys = ("host", "role", "agent", "ok", "errors", "lag_s", "heartbeat_age_s")
    assert set(keys) <= set(first)
    assert (first["role"], first["agent"], first["ok"]) == ("S", "v0.1.0", True)
    assert second["errors"] == ["no heartbeat for 1m39s", "storage: no space"]
    assert answer["pitr"] == {
        "conf": False,
        "run": False,
        "nodes": [],
        "lag_s": None,
        "error": None,
        "behind": [],
        "gaps": [],
    }
    (item,) = answer["running"]
    assert item["op_id"] == running.id
    assert item["type"] == "backup"
    assert item["startTS"] == int(NOW.timestamp())
    assert item["progress"]["bytes_s"] == (512 << 20) // 64
    assert item["progress"]["eta_s"] == 64
    assert item["progress"]["replsets"][0]["rs"] == "rs0"
    shown = {one["name"]: one["status"] for one in answer["backups"]["snapshot"]}
    assert shown == {NEW: "done", running.name: "running", "bad": "failed"}
    assert answer["backups"]["path"] == "file:///backups"


def test_status_in_text(ctl: Ctl) -> None:
    ctl.world.operations = [
        operation(name="bad", id="9" * 24, state=State.FAILED, error=failure(message="x " * 99)),
        operation(state=State.RUNNING, parts=(part(),)),
        operation(id="8" * 24, name="next", queued=True),
    ]
    ctl.world.backups = [backup(NEW)]
    ctl.world.nodes.append(node("h2:27017", role=Role.PRIMARY, errors=("oplog too small",)))
    ctl.world.hello = {"hosts": ["h1:27017", "h2:27017", "h3:27017"], "arbiters": ["h4:27017"]}
    outcome = ctl("status", "--priority")
    _fits(outcome)
    for words in (
        "- h1:27017 [S]: tidelog-agent [v0.1.0] OK, priority 1",
        "- h2:27017 [P]: tidelog-agent [v0.1.0] FAILED, priority 0.5",
        "> oplog too small",
        "- h3:27017: NO AGENT",
        "- h4:27017 [A]: arbiter, needs no agent",
        "Status [OFF]",
        "512.0 MiB of 1.0 GiB, 1,000,000 documents",
        "rs0: running on rs0/h1:27017, reading",
        "queued",
        "Newest restorable time: 2026-02-28T10:00:00Z",
    ):
        assert words in outcome.out
    assert "failed: x x x" in outcome.out


def test_status_of_nothing(ctl: Ctl) -> None:
    ctl.world.nodes = []
    ctl.world.settings = Settings()
    outcome = ctl("status")
    _fits(outcome)
    assert "no agent is running" in outcome.out
    assert "no storage is configured" in outcome.out


def test_status_section_by_section(ctl: Ctl) -> None:
    ctl.world.settings = load_yaml("pitr: {enabled: true}")
    ctl.world.leases = [
        Lease(id="slicer/rs0", owner="rs0/h1:27017", epoch=1, expires_at=NOW),
    ]
    answer = ctl("status", "-s", "pitr", "-s", "running", "-o", "json").json
    assert list(answer) == ["pitr", "running"]
    assert answer["pitr"]["run"] is True
    assert "Running on: rs0/h1:27017" in ctl("status", "-s", "pitr").out


def test_status_watched_is_a_line_each_as_json(ctl: Ctl) -> None:
    def stop(elapsed: float) -> None:
        if elapsed > 5:
            raise KeyboardInterrupt

    ctl.world.clock.on_sleep = stop
    outcome = ctl("status", "--watch", "-s", "cluster", "-o", "json-pretty")
    assert outcome.code == 130
    frames = outcome.out.splitlines()
    assert len(frames) == 3
    assert all(json.loads(frame)["cluster"] for frame in frames), "its end is no error among them"
    assert outcome.err.strip() == ""


def test_a_published_backup_is_described(ctl: Ctl) -> None:
    ctl.world.backups = [backup(NEW)]
    rows = [{"ns": "shop.orders", "documents": 7}]
    ctl.world.operations = [
        operation(
            name=NEW,
            state=State.DONE,
            parts=(part(state=State.DONE, result={"collections": rows}),),
            settings={"storage": {"secret": "s3cret"}},
        )
    ]
    answer = ctl("describe-backup", NEW, "-o", "json").json
    assert answer["status"] == "done"
    assert answer["size_h"] == "12.0 MiB"
    assert answer["last_write_time"] == NEW
    (share,) = answer["replsets"]
    assert share["collection_count"] == 3
    assert "collections" not in share
    whole = ctl("describe-backup", NEW, "--with-collections", "-o", "json")
    assert whole.json["replsets"][0]["collections"] == rows
    assert "s3cret" not in whole.out
    text = ctl("describe-backup", NEW)
    assert f"name: '{NEW}'" in text.out


def test_what_was_narrowed_is_described_as_selective(ctl: Ctl) -> None:
    ctl.world.backups = [backup(NEW, ns=("shop.*",)), backup(OLD)]
    told = [ctl("describe-backup", name, "-o", "json").json["selective"] for name in (NEW, OLD)]
    assert told == [True, False]


def test_a_backup_that_is_only_in_the_catalogue_is_described(ctl: Ctl) -> None:
    ctl.world.backups = [backup(NEW)]
    answer = ctl("describe-backup", NEW, "--with-collections", "-o", "json").json
    assert answer["replsets"][0]["collections"] == []
    assert answer["status"] == "done"


def test_a_failed_backup_is_described_from_its_operation(ctl: Ctl) -> None:
    failed = part(state=State.FAILED, error=failure())
    ctl.world.operations = [operation(state=State.FAILED, error=failure(), parts=(failed,))]
    answer = ctl("describe-backup", ctl.world.operations[0].name, "-o", "json").json
    assert answer["status"] == "failed"
    assert answer["error"]["message"] == "no space left"
    assert answer["replsets"][0]["error"]["type"] == "StorageFull"


def test_a_restore_is_described(ctl: Ctl) -> None:
    ctl.world.operations = [
        operation(
            Kind.RESTORE,
            "r1",
            spec={"backup": NEW},
            settings={"secret": "s3cret"},
            state=State.DONE,
            parts=(part(result={"documents": 5}),),
        )
    ]
    outcome = ctl("describe-restore", "r1", "-o", "json")
    assert outcome.json["backup"] == NEW
    assert outcome.json["replsets"][0]["documents"] == 5
    assert "s3cret" not in outcome.out
    assert "backup: '2026" in ctl("describe-restore", "r1").out
    assert ctl("describe-restore", "r2").code == 4
    assert "backup_collections" not in outcome.json


def test_a_restore_is_described_with_the_collections_of_its_backup(ctl: Ctl) -> None:
    held = [{"ns": "shop.orders", "documents": 5}]
    ctl.world.operations = [
        operation(Kind.RESTORE, "r1", spec={"backup": NEW}, state=State.DONE, parts=(part(),)),
        operation(Kind.BACKUP, NEW, state=State.DONE, parts=(part(result={"collections": held}),)),
    ]
    described = ctl("describe-restore", "r1", "--with-collections", "-o", "json").json
    assert list(described["backup_collections"].values()) == [held]


def _event(second: int = 5, **changes: object) -> Event:
    at = datetime(2026, 1, 2, 3, 4, second, tzinfo=UTC)
    facts = {"at": at, "severity": "W", "node": "rs0/h1:27017", "replset": "rs0"}
    facts |= {"event": "backup.published", "kind": "backup", "name": "b1", "op_id": "f" * 24}
    facts |= {"fields": {"size_bytes": 5, "epoch": 3}}
    return Event.model_validate({**facts, **changes})


def test_logs_in_text(ctl: Ctl) -> None:
    ctl.world.events = [_event(), _event(6, kind=None, event="agent.started", fields={})]
    assert ctl("logs").out.splitlines() == [
        "2026-01-02T03:04:05Z W [rs0/h1:27017] [backup/b1] backup.published size_bytes=5",
        "2026-01-02T03:04:06Z W [rs0/h1:27017] agent.started",
    ]
    line = ctl("logs", "-x", "-t", "1", "--timezone", "Europe/Berlin").out
    assert line.startswith("2026-01-02T04:04:06+0100 W")
    assert "f" * 24 in line
    assert ctl("logs", "--timezone", "Local").code == 0
    ctl.world.events = []
    assert ctl("logs").out == "no events\n"


def test_logs_as_json(ctl: Ctl) -> None:
    ctl.world.events = [_event(), _event(6)]
    first, _ = ctl("logs", "-o", "json").json
    assert first["ts"] == 1767323045.0
    assert (first["s"], first["e"], first["eobj"]) == ("W", "backup", "b1")


@pytest.mark.parametrize("form", [[], ["-o", "json"], ["-o", "json-pretty"]])
def test_logs_followed_are_one_line_each(ctl: Ctl, form: list[str]) -> None:
    ctl.world.events = [_event(), _event(6)]
    outcome = ctl("logs", "-f", *form)
    assert outcome.code == 130
    lines = outcome.out.splitlines()[:4]
    assert len(lines) == 4
    if form:
        assert [json.loads(line)["e"] for line in lines] == ["backup"] * 4


def test_logs_are_chosen_by_the_store(ctl: Ctl) -> None:
    ctl("logs", "-n", "rs0/h1:27017", "-s", "E", "-e", "backup/b1", "-i", "f" * 24, "-t", "0")
    chosen = ctl.world.filters[0]
    assert chosen.model_dump(exclude_none=True) == {
        "severity": "E",
        "replset": "rs0",
        "node": "rs0/h1:27017",
        "kind": "backup",
        "name": "b1",
        "op_id": "f" * 24,
    }
    ctl("logs", "-n", "rs0")
    assert ctl.world.filters[1].node is None


def test_priorities_that_let_nobody_archive_are_told(ctl: Ctl) -> None:
    def told() -> object:
        return ctl("status", "-o", "json").json["pitr"]["error"]

    ctl.world.nodes = [node("h1:27017"), node("h2:27017", priority=0.0)]
    settings = ["pitr.enabled=true", "pitr.priority.h1:27017=0"]
    ctl("config", *(part for one in settings for part in ("--set", one)))
    assert told() is None, "h2 is not named"
    ctl("config", "--set", "pitr.priority.h2:27017=0")
    assert told() == "rs0: pitr.priority is 0 for all its agents, and none archives"
    ctl("config", "--unset", "pitr.priority")
    assert told() is None
    ctl.world.nodes = [node("h1:27017", priority=0.0), node("h2:27017", age_s=99)]
    assert told() == "rs0: backup.priority is 0 for all its agents, and none archives"
