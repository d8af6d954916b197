"""`backup` and `cancel-backup`."""

from __future__ import annotations

import pytest

from agent.wire.operations import Kind, State
from agent.wire.profiles import with_profile
from agent.wire.settings import Settings, load_yaml
from tests.unit.ctl.world import NOW, STORAGE, Ctl, backup, node, operation, part


@pytest.mark.parametrize("flags", [("--compression-level", "23"), ("--ns", "shop..orders")])
def test_what_no_backup_can_do_is_usage(ctl: Ctl, flags: tuple[str, ...]) -> None:
    assert ctl("backup", *flags).code == 2
    assert not ctl.world.operations


def test_without_waiting_name_id_and_status_are_known(ctl: Ctl) -> None:
    answer = ctl("backup", "-o", "json").json
    assert list(answer) == ["name", "op_id", "status"]
    assert answer["status"] == "requested"
    assert "Backup 2026-03-01T12:00:02Z requested [op id: " in ctl("backup", "--queue").out


def test_every_flag_reaches_the_specification(ctl: Ctl) -> None:
    ctl(
        *("backup", "--ns", "a.b,c.*", "--exclude-ns", "c.d", "--with-users-and-roles"),
        *("--compression", "none", "--compression-level", "3", "--num-parallel-collections", "4"),
        *("--profile", "main", "--hold", "audit"),
    )
    made = ctl.world.operations[0]
    assert made.kind is Kind.BACKUP
    assert made.spec == {
        "type": "logical",
        "ns": ("a.b", "c.*"),
        "exclude_ns": ("c.d",),
        "with_users_and_roles": True,
        "compression": "none",
        "compression_level": 3,
        "num_parallel_collections": 4,
        "profile": "main",
        "hold": "audit",
    }
    assert "@" in made.requested_by


@pytest.mark.parametrize("name", ["gzip", "pgzip", "s2", "snappy", "lz4", "zstd"])
def test_algorithms_of_pbm_mean_zstd(ctl: Ctl, name: str) -> None:
    assert ctl("backup", "--compression", name).code == 0
    assert ctl.world.operations[0].spec["compression"] == "zstd"


def test_a_misspelt_namespace_is_told(ctl: Ctl) -> None:
    held = [
        {"ns": ns, "documents": 1, "size": 9, "indexes": 1}
        for ns in ("shop.orders", "admin.system.users", "blog.system.buckets.weather")
    ]
    done = {"collections": held}
    ctl.world.backups = [backup("2026-03-01T12:00:01Z")]

    def warnings(patterns: str) -> list[str]:
        ctl.world.operations.clear()
        ctl.world.becomes(1, state=State.DONE, parts=(part(state=State.DONE, result=done),))
        answer = ctl("backup", "--ns", patterns, "--wait", "-o", "json").json
        return list(answer.get("warnings", []))

    assert warnings("shop.oders,shop.orders,blog.weather,blog.*") == [
        "there is no collection for --ns shop.oders"
    ]
    held.append({"ns": "shop.system.views", "documents": 1, "size": 9, "indexes": 1})
    assert warnings("shop.oders,bolg") == ["there is no collection for --ns bolg"]
    del held[1:]  # not all that the backup holds are listed
    assert warnings("bolg") == []


def test_everything_is_everything(ctl: Ctl) -> None:
    ctl("backup", "--ns", "*.*")
    assert ctl.world.operations[0].spec["ns"] == ()


@pytest.mark.parametrize("kind", ["physical", "incremental", "external"])
def test_unsupported_types_are_one_clear_refusal(ctl: Ctl, kind: str) -> None:
    outcome = ctl("backup", "--type", kind)
    assert outcome.code == 3
    assert outcome.err == (
        f"Error: backups of type {kind} are not supported\nHint: take a logical one (the default)\n"
    )


def test_a_backup_goes_to_several_profiles(ctl: Ctl) -> None:
    other = load_yaml("storage: {type: filesystem, filesystem: {path: /other}}").storage
    assert other is not None
    ctl.world.settings = with_profile(ctl.world.settings, "other", other)
    assert ctl("backup", "--profile", "main", "--profile", "other").code == 0
    assert ctl.world.operations[-1].spec["profiles"] == ("main", "other")
    ctl.world.operations.clear()
    assert ctl("backup", "--profile", "main,other", "--profile", "main").code == 0
    assert ctl.world.operations[-1].spec["profiles"] == ("main", "other")


def test_an_unknown_profile_is_not_found(ctl: Ctl) -> None:
    assert ctl("backup", "--profile", "other").code == 4


@pytest.mark.parametrize(
    "command",
    [
        ("backup",),
        ("verify",),
        ("verify", "--restore"),
        ("oplog-replay", "--start", "2026-01-01T00:00:00", "--end", "2026-01-02T00:00:00", "-y"),
        ("profile", "sync", "--all"),
        ("storage", "policy"),
        ("storage", "lifecycle"),
    ],
)
def test_no_storage_is_said_at_once(ctl: Ctl, command: tuple[str, ...]) -> None:
    ctl.world.settings = Settings()
    outcome = ctl(*command)
    assert outcome.code == 3
    assert "no storage is configured" in outcome.err
    assert not ctl.world.operations


@pytest.mark.parametrize("also", [(), ("--dry-run",)])
def test_a_replay_answers_with_the_keys_of_a_restore(ctl: Ctl, also: tuple[str, ...]) -> None:
    ctl.world.becomes(1, state=State.DONE, finished_at=NOW, result={"plan": {"replsets": {}}})
    given = ("--start", "2026-01-01T00:00:00", "--end", "2026-01-02T00:00:00", "-y", "-o", "json")
    found = ctl("oplog-replay", *given, *also).json
    assert found["backup"] is None
    assert {"name", "op_id", "status", "start"} <= set(found)


def test_what_lies_on_another_profile_alone_can_be_verified(ctl: Ctl) -> None:
    assert STORAGE.storage is not None
    ctl.world.settings = with_profile(Settings(), "other", STORAGE.storage)
    assert ctl("verify").code == 0
    assert ctl("verify", "--profile", "main").code == 3
    assert ctl("verify", "--profile", "third").code == 4


def test_nobody_there_is_a_warning(ctl: Ctl) -> None:
    ctl.world.nodes = [node(age_s=60)]
    outcome = ctl("backup")
    assert outcome.code == 0
    assert outcome.err.startswith("Warning: no agent is alive; the backup ")


def test_queued_is_said(ctl: Ctl) -> None:
    ctl("backup")
    assert "queued behind the operation in progress" in ctl("backup", "--queue").out


def test_cancel_asks_for_the_one_that_runs(ctl: Ctl) -> None:
    ctl.world.operations = [
        operation(Kind.DELETE_BACKUP, id="1" * 24),
        operation(id="2" * 24, queued=True),
        operation(id="3" * 24, state=State.RUNNING),
    ]
    answer = ctl("cancel-backup", "-o", "json").json
    assert ctl.world.cancelled == ["3" * 24]
    assert answer["op_id"] == "3" * 24
    assert answer["status"] == "running"


def test_cancel_waits_until_it_is(ctl: Ctl) -> None:
    ctl("backup")
    ctl.world.becomes(2, state=State.CANCELLED)
    outcome = ctl("cancel-backup", "--wait")
    assert outcome.code == 0
    assert outcome.out == "Backup 2026-03-01T12:00:01Z cancelled\n"


def test_cancel_that_came_too_late_says_so(ctl: Ctl) -> None:
    ctl("backup")
    ctl.world.becomes(2, state=State.DONE)
    assert "it was complete before" in ctl("cancel-backup", "--wait").out


def test_cancel_of_one_that_fails_meanwhile_is_a_failure(ctl: Ctl) -> None:
    ctl("backup")
    ctl.world.becomes(2, state=State.FAILED)
    assert ctl("cancel-backup", "--wait").code == 1


def test_nothing_to_cancel(ctl: Ctl) -> None:
    ctl.world.operations = [operation(Kind.RESTORE), operation(state=State.DONE)]
    outcome = ctl("cancel-backup")
    assert outcome.code == 4
    assert "no backup is running" in outcome.err


def test_cancel_ends_whatever_runs(ctl: Ctl) -> None:
    ctl.world.operations = [operation(Kind.VERIFY, id="1" * 24, state=State.RUNNING)]
    ctl.world.becomes(2, state=State.CANCELLED)
    outcome = ctl("cancel", "--wait")
    assert (outcome.code, ctl.world.cancelled) == (0, ["1" * 24])
    assert outcome.out.startswith("Verification ")
    assert outcome.out.endswith(" cancelled\n")


def test_cancel_does_not_guess(ctl: Ctl) -> None:
    ctl.world.operations = [
        operation(Kind.VERIFY, id="1" * 24, state=State.RUNNING),
        operation(id="2" * 24, state=State.RUNNING),
    ]
    outcome = ctl("cancel")
    assert (outcome.code, ctl.world.cancelled) == (3, [])
    assert "1" * 24 in outcome.err
    assert ctl("cancel", "2" * 24).code == 0
    assert ctl.world.cancelled == ["2" * 24]
    assert ctl("cancel", "nothing-of-the-kind").code == 4


def test_a_restore_that_nobody_has_begun_is_cancelled(ctl: Ctl) -> None:
    ctl.world.operations = [operation(Kind.RESTORE, id="1" * 24)]
    assert ctl("cancel").code == 0
    assert ctl.world.cancelled == ["1" * 24]


def test_a_restore_that_has_begun_is_not_cancelled(ctl: Ctl) -> None:
    begun = operation(Kind.RESTORE, id="1" * 24, state=State.RUNNING, lead_epoch=1)
    ctl.world.operations = [begun]
    outcome = ctl("cancel")
    assert (outcome.code, ctl.world.cancelled) == (3, [])
    assert "half of one helps nobody" in outcome.err
    ctl.world.operations = [operation(Kind.RESTORE, id="1" * 24, queued=True)]
    assert ctl("cancel").code == 0
