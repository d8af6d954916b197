"""`restore`, and how it is confirmed."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.operations import Kind, State
from ctl.output import Output
from tests.unit.ctl.world import Ctl, backup, operation, part

OLD, NEW = "2026-02-01T10:00:00Z", "2026-02-28T10:00:00Z"


@pytest.fixture
def stocked(ctl: Ctl) -> Ctl:
    ctl.world.backups = [backup(OLD), backup(NEW), backup("2026-02-28T11:00:00Z", ns=("a.b",))]
    ctl.world.databases = {"admin": 1, "shop": 5 << 20, "blog": 1 << 10, "local": 9}
    return ctl


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Somebody who answers with what is in the list."""
    answers: list[str] = []
    monkeypatch.setattr(Output, "is_interactive", True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answers.pop(0))
    return answers


@pytest.mark.parametrize("command", [("restore", NEW, "-y"), ("export", NEW, "there")], ids=str)
def test_a_profile_that_does_not_exist_is_told_at_once(
    stocked: Ctl, command: tuple[str, ...]
) -> None:
    outcome = stocked(*command, "--profile", "nowhere")
    assert (outcome.code, stocked.world.operations) == (4, [])
    assert "there is no profile nowhere" in outcome.err


def _spec(ctl: Ctl) -> dict[str, Any]:
    made = ctl.world.operations[-1]
    assert made.kind is Kind.RESTORE
    return made.spec


def test_without_a_terminal_it_has_to_be_confirmed_beforehand(stocked: Ctl) -> None:
    outcome = stocked("restore", NEW)
    assert outcome.code == 3
    assert "no terminal to ask on" in outcome.err
    assert "Hint: add -y" in outcome.err
    assert not stocked.world.operations
    assert stocked("restore", NEW, "-y").code == 0


def test_a_person_sees_what_goes_and_is_asked(stocked: Ctl, person: list[str]) -> None:
    person += ["n", "y"]
    outcome = stocked("restore", NEW)
    assert outcome.code == 0
    assert outcome.out == "nothing was restored\n"
    assert "what is not in it will be dropped" in outcome.err
    assert "1,234 documents" in outcome.err
    assert "rs0/h1:27017,h2:27017" in outcome.err
    assert "shop" in outcome.err
    assert "local" not in outcome.err
    assert not stocked.world.operations
    assert "Restore 2026-03-01T12:00:01Z requested" in stocked("restore", NEW).out


def test_of_a_selective_restore_only_what_is_touched_is_shown(
    stocked: Ctl, person: list[str]
) -> None:
    person += ["n", "n"]
    shown = stocked("restore", NEW, "--ns", "shop.*", "--exclude-ns", "shop.x").err
    assert "Only shop.* will be replaced, but not shop.x." in shown
    assert "blog" not in shown
    shown = stocked("restore", NEW, "--ns-from", "shop.a", "--ns-to", "blog.a").err
    assert "Collection blog.a will be replaced by shop.a of the backup." in shown


def test_many_databases_are_not_all_shown(stocked: Ctl, person: list[str]) -> None:
    person += ["n"]
    stocked.world.databases = {f"db{number:03d}": 1 for number in range(100)}
    assert "and 70 more" in stocked("restore", NEW).err


def test_every_flag_reaches_the_specification(stocked: Ctl) -> None:
    outcome = stocked(
        *("restore", NEW, "-y", "--ns", "a.b", "--exclude-ns", "c.d", "--with-users-and-roles"),
        *("--replset-remapping", "rs0=rsA", "--num-parallel-collections", "3"),
        *("--num-insertion-workers-per-collection", "5", "--index-commit-quorum", "2"),
    )
    assert outcome.code == 0
    assert _spec(stocked) == {
        "backup": NEW,
        "ns": ("a.b",),
        "exclude_ns": ("c.d",),
        "with_users_and_roles": True,
        "replset_remapping": {"rsA": "rs0"},
        "num_parallel_collections": 3,
        "num_insertion_workers": 5,
        "index_commit_quorum": 2,
        "dry_run": False,
    }


def test_to_a_time_the_newest_full_backup_before_it_is_taken(stocked: Ctl) -> None:
    stocked("restore", "--time", "2026-02-28T12:00:00", "-y")
    assert _spec(stocked)["backup"] == NEW
    assert _spec(stocked)["time"]["I"] == 0xFFFF_FFFF
    stocked.world.operations.clear()
    stocked("restore", "--time", "1772272800,3", "--base-snapshot", OLD, "-y")
    assert _spec(stocked)["backup"] == OLD
    assert _spec(stocked)["time"] == {"T": 1772272800, "I": 3}


@pytest.mark.parametrize(
    "flags",
    [["--time", "2026-01-01T00:00:00"], ["--time", "2026-02-02T00:00:00", "--base-snapshot", NEW]],
)
def test_no_backup_for_that_time(stocked: Ctl, flags: list[str]) -> None:
    assert stocked("restore", *flags, "-y").code == 3


@pytest.mark.parametrize(
    "flags",
    [
        ["--base-snapshot", OLD],
        [NEW, "--ns-from", "a.b"],
        [NEW, "--ns-from", "a.b", "--ns-to", "c"],
        [NEW, "--ns-from", "a.*", "--ns-to", "c.d"],
        [NEW, "--ns-from", "a.b", "--ns-to", "c.d", "--ns", "e.f"],
        [NEW, "--ns-from", "a.b", "--ns-to", "admin.d"],
        [NEW, "--index-commit-quorum", "51"],
        [NEW, "--index-commit-quorum", "all"],
        [NEW, "--replset-remapping", "x"],
    ],
    ids=" ".join,
)
def test_flags_that_make_no_sense(stocked: Ctl, flags: list[str]) -> None:
    assert stocked("restore", *flags, "-y").code == 2
    assert not stocked.world.operations


def test_an_unknown_backup_is_told_with_the_nearest(stocked: Ctl) -> None:
    outcome = stocked("restore", "2026-02-28T10:00:01Z", "-y")
    assert outcome.code == 4
    assert f"Hint: nearest: {NEW}" in outcome.err
    assert "the newest is 2026-02-28T11:00:00Z" in stocked("restore", "xyz", "-y").err


def test_while_a_backup_runs_it_is_refused_before_any_question(
    stocked: Ctl, person: list[str]
) -> None:
    running = operation(state=State.RUNNING)
    stocked.world.operations = [running]
    outcome = stocked("restore", NEW)
    assert outcome.code == 3
    assert f"another operation in progress: backup {running.name} ({running.id})" in outcome.err


def test_the_result_is_as_the_contract_has_it(stocked: Ctl) -> None:
    done = part(state=State.DONE, result={"documents": 7})
    stocked.world.becomes(
        2, state=State.DONE, parts=(done,), result={"restored_to": {"T": 5, "I": 6}}
    )
    answer = stocked("restore", NEW, "-y", "--wait", "-o", "json").json
    assert answer == {
        "name": "2026-03-01T12:00:01Z",
        "op_id": f"{1:024x}",
        "status": "done",
        "backup": NEW,
        "restored_to": {"T": 5, "I": 6},
        "replsets": [{"name": "rs0", "status": "done", "node": "rs0/h1:27017", "documents": 7}],
    }


def test_warnings_of_a_restore_are_shown(stocked: Ctl) -> None:
    done = part(state=State.DONE, result={"warnings": ["FCV is 5.0 here, 6.0 in the backup"]})
    stocked.world.becomes(2, state=State.DONE, parts=(done,))
    outcome = stocked("restore", NEW, "-y", "--wait")
    assert f"backup {NEW}, as of {NEW} (1772272800,3)" in outcome.out
    assert "Warning: rs0: FCV is 5.0 here, 6.0 in the backup" in outcome.out


def test_a_dry_run_waits_for_the_plan_and_asks_nothing(stocked: Ctl) -> None:
    plan = {"drop": ["shop.old"], "objects": 5}
    stocked.world.becomes(2, state=State.DONE, result={"plan": plan})
    outcome = stocked("restore", NEW, "--dry-run")
    assert outcome.code == 0
    assert outcome.out.startswith("Nothing was changed; the restore would do this:\n")
    assert "- shop.old" in outcome.out
    assert _spec(stocked)["dry_run"] is True
    stocked.world.operations.clear()
    assert stocked("restore", NEW, "--dry-run", "-o", "json").json["plan"] == plan


def test_who_may_not_list_databases_still_gets_the_sentence(
    stocked: Ctl, person: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.errors import PermissionDenied

    async def deny(_: object) -> dict[str, int]:
        raise PermissionDenied("listing the databases: not allowed")

    monkeypatch.setattr("tests.unit.ctl.world._FakeSession.databases", deny)
    person += ["y"]
    outcome = stocked("restore", NEW, "--wait-time", "1s")
    assert outcome.code == 6
    assert "what is not in it will be dropped" in outcome.err
