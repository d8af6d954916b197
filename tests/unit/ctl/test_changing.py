"""`config`, `delete-backup`, `db-role`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from agent.wire.collections import ALL
from agent.wire.operations import Kind, State
from agent.wire.settings import Settings
from ctl.output import Output
from tests.unit.ctl.world import STORAGE, Ctl, backup, node

A, B, C = "2026-02-01T10:00:00Z", "2026-02-10T10:00:00Z", "2026-02-28T10:00:00Z"
FILE = "storage:\n  type: filesystem\n  filesystem:\n    path: /elsewhere\n"


def test_config_shows_what_is_set(ctl: Ctl) -> None:
    shown = {"storage": {"type": "filesystem", "filesystem": {"path": "/backups"}}}
    assert ctl("config", "-o", "json").json == shown
    assert ctl("config", "--list").out.startswith("storage:\n  type: filesystem\n")
    ctl.world.settings = Settings()
    assert ctl("config", "-o", "json").json == {}
    assert "nothing is set" in ctl("config").out


def test_config_of_one_key(ctl: Ctl) -> None:
    assert ctl("config", "storage.filesystem.path").out == "/backups\n"
    assert ctl("config", "pitr.enabled").out == "false\n"
    answer = ctl("config", "backup.compression", "-o", "json").json
    assert answer == {"key": "backup.compression", "value": "zstd"}
    assert "path: /backups" in ctl("config", "storage").out


def test_config_set_makes_several_changes_as_one(ctl: Ctl) -> None:
    ctl.world.settings = Settings()
    outcome = ctl(
        *("config", "--set", "storage.type=filesystem"),
        *("--set", "storage.filesystem.path=/new", "--set", "backup.compressionLevel=3"),
    )
    assert outcome.code == 0, outcome.err
    assert ctl.world.version == 2
    assert ctl.world.wakes == 1
    assert ctl.world.settings.storage is not None
    assert ctl.world.settings.backup.compression_level == 3


def test_config_unset(ctl: Ctl) -> None:
    ctl("config", "--set", "backup.compressionLevel=3")
    ctl("config", "--unset", "backup.compressionLevel")
    assert "compressionLevel" not in ctl("config").out


@pytest.mark.parametrize(
    "pair",
    [
        *("storage", "=x", "storage.type=tape", "bakcup.compression=none"),
        *("backup.compressionLevel=23", "pitr.compressionLevel=-8"),
    ],
)
def test_config_refuses_what_is_wrong(ctl: Ctl, pair: str) -> None:
    assert ctl("config", "--set", pair).code == 2
    assert ctl.world.version == 1


def test_config_from_a_file_and_from_stdin(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "storage.yaml"
    path.write_text(FILE)
    assert ctl("config", "--file", str(path)).code == 0
    assert "/elsewhere" in ctl("config").out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"pitr: {enabled: true}")))
    assert ctl("config", "--file", "-").code == 0
    assert ctl("config", "-o", "json").json == {"pitr": {"enabled": True}}
    assert ctl("config", "--file", str(tmp_path / "missing")).code == 2


@pytest.mark.parametrize("text", ["", "\n# nothing yet\n", "---\n"])
def test_an_empty_file_does_not_take_all_settings_away(ctl: Ctl, tmp_path: Path, text: str) -> None:
    path = tmp_path / "storage.yaml"
    path.write_text(text)
    outcome = ctl("config", "--file", str(path))
    assert outcome.code == 2
    assert f"{path} is empty" in outcome.err
    assert ctl.world.settings.storage is not None
    path.write_text("{}  # all of them\n")
    assert ctl("config", "--file", str(path)).code == 0
    assert ctl.world.settings.storage is None


def test_a_wrong_file_names_itself_and_the_line(ctl: Ctl, tmp_path: Path) -> None:
    path = tmp_path / "tab.yaml"
    path.write_text("storage:\n\ttype: filesystem\n")
    outcome = ctl("config", "--file", str(path))
    assert outcome.code == 2
    assert "tab.yaml" in outcome.err
    assert "line 2" in outcome.err


def test_a_change_of_somebody_else_in_between_is_kept(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.ctl.world import _Settings

    original = _Settings.read
    calls = 0

    async def read(self: _Settings) -> tuple[Settings, int]:
        nonlocal calls
        calls += 1
        found = await original(self)
        if calls == 1:
            ctl.world.settings = STORAGE.model_copy(update={"pitr": STORAGE.pitr})
            ctl.world.version += 1
        return found

    monkeypatch.setattr(_Settings, "read", read)
    assert ctl("config", "--set", "backup.compressionLevel=3").code == 0
    assert calls == 2

    async def always(self: _Settings) -> tuple[Settings, int]:
        settings, version = await original(self)
        return settings, version - 1

    monkeypatch.setattr(_Settings, "read", always)
    assert ctl("config", "--set", "backup.compressionLevel=4").code == 3


def test_the_agents_say_whether_the_storage_works(ctl: Ctl) -> None:
    def check(elapsed: float) -> None:
        if elapsed > 2:
            ctl.world.nodes = [node(storage_settings_version=2)]

    ctl.world.clock.on_sleep = check
    outcome = ctl("config", "--set", "storage.filesystem.path=/new")
    assert outcome.code == 0
    assert "Storage check: rs0/h1:27017: ok" in outcome.err
    assert "--force-resync" in outcome.err


def test_a_storage_that_does_not_work_is_an_error(ctl: Ctl) -> None:
    ctl.world.nodes = [node(storage_settings_version=2, storage_error="read-only")]
    outcome = ctl("config", "--set", "storage.filesystem.path=/new", "-o", "json")
    assert outcome.code == 1
    assert "the settings are stored" in outcome.json["error"]
    assert "rs0/h1:27017: read-only" in outcome.json["error"]


def test_nobody_to_check_is_a_warning(ctl: Ctl) -> None:
    ctl.world.nodes = []
    outcome = ctl("config", "--set", "storage.filesystem.path=/new")
    assert outcome.code == 0
    assert "Warning: no agent is alive" in outcome.err


def test_agents_that_are_slow_are_not_waited_for_long(ctl: Ctl) -> None:
    outcome = ctl("config", "--set", "storage.filesystem.path=/new")
    assert outcome.code == 0
    assert "has not found out yet" in outcome.err
    assert ctl.world.clock.now - 1000 < 10


def test_config_check(ctl: Ctl) -> None:
    answer = ctl("config", "--check", "-o", "json").json
    assert answer == {"storage": [{"node": "rs0/h1:27017", "ok": True, "error": None}]}
    ctl.world.nodes.append(node("h2:27017", storage_error="no route"))
    outcome = ctl("config", "--check")
    assert outcome.code == 1
    assert "rs0/h2:27017: no route" in outcome.err
    ctl.world.nodes = []
    assert ctl("config", "--check").code == 1
    ctl.world.settings = Settings()
    assert ctl("config", "--check").code == 3


def test_force_resync(ctl: Ctl) -> None:
    ctl("config", "--force-resync", "--include-restores")
    made = ctl.world.operations[0]
    assert made.kind is Kind.RESYNC
    assert made.spec == {"include_restores": True, "profiles": ("main",)}
    ctl.world.operations.clear()
    ctl.world.becomes(1, state=State.DONE, result={"backups": 4})
    answer = ctl("config", "--force-resync", "--wait", "-o", "json").json
    assert (answer["status"], answer["backups"]) == ("done", 4)
    assert ctl("config", "--include-restores").code == 2


@pytest.fixture
def stocked(ctl: Ctl) -> Ctl:
    ctl.world.backups = [backup(A), backup(B, hold="audit"), backup(C)]
    return ctl


def test_delete_by_name(stocked: Ctl) -> None:
    assert stocked("delete-backup", A).code == 3
    outcome = stocked("delete-backup", A, "-f")
    assert outcome.code == 0
    assert "Deletion 2026-03-01T12:00:01Z requested" in outcome.out
    assert stocked.world.operations[0].spec == {"names": (A,)}
    assert stocked("delete-backup", "x", "-y").code == 4
    held = stocked("delete-backup", B, "-y")
    assert held.code == 3
    assert "stays: on hold: audit" in held.err
    assert f"Hint: 'ctl hold {B} --release' lets it go" in held.err


def test_delete_by_age_says_why_the_rest_stays(stocked: Ctl) -> None:
    answer = stocked("delete-backup", "--older-than", "2026-02-20", "-y", "-o", "json").json
    assert answer["deleted"] == [{"name": A, "size": 12 << 20}]
    assert answer["kept"] == [
        {"name": B, "reason": "on hold: audit"},
        {"name": C, "reason": "not older than 2026-02-20T00:00:00Z"},
    ]
    assert answer["dry_run"] is False
    assert answer["status"] == "requested"


def test_days_count_from_the_server_s_time(stocked: Ctl) -> None:
    # It is 2026-03-01T12:00:00 there; C is a day and two hours old.
    def chosen(days: int) -> list[str]:
        answer = stocked("delete-backup", "--older-than", f"{days}d", "--dry-run", "-o", "json")
        return [item["name"] for item in answer.json["deleted"]]

    assert chosen(2) == [A]
    assert chosen(1) == [A, C]
    assert not stocked.world.operations


def test_delete_of_nothing(stocked: Ctl) -> None:
    outcome = stocked("delete-backup", "--older-than", "900d")
    assert outcome.code == 0
    assert outcome.out.startswith("Nothing to delete\nKept:\n")
    assert not stocked.world.operations


def test_delete_by_type_and_profile(stocked: Ctl) -> None:
    stocked.world.backups.append(backup("2026-01-01T10:00:00Z", ns=("a.b",)))

    def chosen(*flags: str) -> list[str]:
        answer = stocked("delete-backup", "--older-than", "0d", "--dry-run", "-o", "json", *flags)
        return [item["name"] for item in answer.json["deleted"]]

    assert chosen("--type", "selective") == ["2026-01-01T10:00:00Z"]
    assert chosen("--type", "logical") == [A, C]
    assert stocked("delete-backup", "--older-than", "0d", "--profile", "other").code == 4
    assert stocked("delete-backup", A, "--type", "logical").code == 2


def test_delete_asks_and_takes_no_for_an_answer(
    stocked: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "is_interactive", True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    outcome = stocked("delete-backup", A)
    assert outcome.code == 0
    assert "This will be deleted:" in outcome.err
    assert outcome.out == "nothing was deleted\n"
    assert not stocked.world.operations


def test_delete_waits(stocked: Ctl) -> None:
    stocked.world.becomes(1, state=State.DONE)
    outcome = stocked("delete-backup", A, "-y", "--wait")
    assert outcome.code == 0
    assert "done [op id" in outcome.out


def _privileges(role: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in role["privileges"]:
        found.setdefault(str(item["resource"]), set()).update(item["actions"])
    return found


def test_the_roles_ask_for_no_more_than_is_needed(ctl: Ctl) -> None:
    (role,) = ctl("db-role", "backup", "-o", "json").json["roles"]
    found = _privileges(role)
    assert all(str({"db": "admin", "collection": name}) in found for name in ALL)
    assert "insert" not in found[str({"db": "", "collection": ""})]
    both = ctl("db-role", "restore", "-o", "json").json["roles"]
    assert [one["createRole"] for one in both] == ["tidelogBackup", "tidelogRestore"]
    assert all(one["roles"] == [] for one in both), "nothing by way of a built-in role"


def test_the_roles_are_printed_with_what_each_privilege_is_for(ctl: Ctl) -> None:
    text = ctl("db-role", "--user", "agent").out
    assert "// making room, and replaying drops" in text
    for wide in ("anyAction", "anyResource", "__system"):
        assert wide not in text
    assert 'db.createUser({user: "agent", pwd: passwordPrompt(),' in text
    certificate = ctl("db-role", "backup", "--x509", "--user", "CN=agent,O=é").out
    assert 'db = db.getSiblingDB("$external");\ndb.createUser({user: "CN=agent,O=é",' in certificate
    assert "pwd" not in certificate
