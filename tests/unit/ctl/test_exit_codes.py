"""One test a status: scripts rely on the numbers."""

from __future__ import annotations

import json

import pytest

from agent import errors
from agent.wire.operations import State
from ctl.exit_codes import OperationFailed, WaitRanOut, exit_code
from tests.unit.ctl.world import Ctl, failure, node


def test_0_done(ctl: Ctl) -> None:
    assert ctl("list").code == 0


@pytest.mark.story("F9", "PBM-1586", "PBM-1648", "PBM-1574")
def test_1_the_operation_failed(ctl: Ctl) -> None:
    ctl.world.becomes(1, state=State.FAILED, error=failure())
    outcome = ctl("backup", "--wait")
    assert outcome.code == 1
    assert "failed on rs0/h1:27017: no space left" in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["backup", "--nonsense"],
        ["nonsense"],
        ["restore"],
        ["restore", "x", "--time", "2026-01-01T00:00:00"],
        ["restore", "--time", "yesterday", "-y"],
        ["backup", "--ns", "admin.x"],
        ["backup", "--ns", ""],
        ["backup", "--hold", " "],
        ["restore", "x", "--ns", ",", "-y"],
        ["restore", "x", "--ns-from", "a.b", "--ns-to", "a.b", "-y"],
        ["backup", "--wait-time", "soon"],
        ["config", "storge.type"],
        ["config", "KEY", "--list"],
        ["delete-backup"],
        ["delete-backup", "--older-than", "tomorrow"],
        ["logs", "--timezone", "Middle/Earth"],
    ],
    ids=" ".join,
)
def test_2_usage(ctl: Ctl, arguments: list[str]) -> None:
    outcome = ctl(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("Error: ")
    assert "Traceback" not in outcome.err
    assert "\nHint: " in outcome.err or "no such" in outcome.err


@pytest.mark.parametrize("group", [(), ("profile",)], ids=str)
def test_2_a_group_without_a_command_shows_its_help(ctl: Ctl, group: tuple[str, ...]) -> None:
    outcome = ctl(*group)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: ctl")
    assert "\nCommands:\n" in outcome.err


def test_3_refused(ctl: Ctl) -> None:
    assert ctl("backup").code == 0
    outcome = ctl("backup")
    assert outcome.code == 3
    assert "another operation in progress" in outcome.err


def test_3_what_the_agents_refuse_is_refused(ctl: Ctl) -> None:
    ctl.world.becomes(1, state=State.FAILED, error=failure("TargetNotCovered", "no coverage"))
    assert ctl("backup", "--wait").code == 3


def test_4_not_found(ctl: Ctl) -> None:
    assert ctl("describe-backup", "2026-01-01T00:00:00Z").code == 4


def test_5_unreachable(ctl: Ctl) -> None:
    ctl.world.unreachable = errors.StoreUnavailable("connecting to h1: refused")
    outcome = ctl("list")
    assert outcome.code == 5
    assert outcome.err.splitlines()[0] == "Error: connecting to h1: refused"


@pytest.mark.story("F10", "operator#2146")
def test_6_wait_time_ran_out(ctl: Ctl) -> None:
    outcome = ctl("backup", "--wait-time", "5s")
    assert outcome.code == 6
    assert "not over after" in outcome.err
    assert "it goes on" in outcome.err


@pytest.mark.story("F9", "PBM-1586", "PBM-1648", "PBM-1574")
def test_6_nobody_is_there_for_long(ctl: Ctl) -> None:
    ctl.world.nodes = [node(age_s=40)]
    outcome = ctl("backup", "--wait")
    assert outcome.code == 6
    assert "no agent is alive; the last one, rs0/h1:27017, answered 40 s ago" in outcome.err


@pytest.mark.story("F10", "operator#2146")
def test_130_interrupted_goes_on_and_says_so(ctl: Ctl) -> None:
    def interrupt(elapsed: float) -> None:
        if elapsed > 2:
            raise KeyboardInterrupt

    ctl.world.clock.on_sleep = interrupt
    outcome = ctl("backup", "--wait", "-o", "json")
    assert outcome.code == 130
    assert "interrupted; the backup 2026-03-01T12:00:01Z goes on" in outcome.err
    assert outcome.json["error"].startswith("interrupted")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.Refused("x"), 3),
        (errors.Conflict("x"), 3),
        (errors.TargetNotCovered("x"), 3),
        (errors.UnsupportedVersion("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.StoreUnavailable("x"), 5),
        (errors.NodeUnavailable("x"), 1),
        (errors.PermissionDenied("x"), 1),
        (errors.LeaseLost("x"), 1),
        (WaitRanOut("x"), 6),
        (OperationFailed("x", cause="IntegrityError"), 1),
        (OperationFailed("x", cause="NotFound"), 4),
        (OperationFailed("x", cause="ConfigError"), 3),
        (OperationFailed("x", cause="NoSuchType"), 1),
        (OperationFailed("x", cause="leaves"), 1),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else str(value),
)
def test_the_branch_decides(error: errors.TidelogError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("form", ["json", "json-pretty"])
@pytest.mark.parametrize("spelling", ["-o {}", "-o{}", "--out={}", "--out {}"])
def test_errors_are_json_on_stdout_however_it_is_asked_for(
    ctl: Ctl, form: str, spelling: str
) -> None:
    flags = spelling.format(form).split()
    for arguments in ([*flags, "nonsense"], ["list", "--nonsense", *flags], [*flags, "restore"]):
        outcome = ctl(*arguments)
        answer = json.loads(outcome.out)
        assert set(answer) == {"error", "hint"}
        assert f"Error: {answer['error']}\n" in outcome.err
        assert ("\n  " in outcome.out) == (form == "json-pretty")


def test_credentials_in_a_message_are_not_repeated(ctl: Ctl) -> None:
    ctl.world.unreachable = errors.StoreUnavailable("cannot use mongodb://me:s3cret@h1:1/?x=1")
    outcome = ctl("list", "-o", "json")
    assert "s3cret" not in outcome.out + outcome.err
    assert "mongodb://***@h1:1/" in outcome.json["error"]


def test_an_unexpected_error_is_one_sentence(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    ctl.world.nodes = [None]  # type: ignore[list-item]  # breaks whoever looks at it
    outcome = ctl("status")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: unexpected AttributeError: ")
    monkeypatch.setenv("TIDELOG_DEBUG", "1")
    with pytest.raises(AttributeError):
        ctl("status")


def test_of_a_group_the_known_error_is_told(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("both", [ValueError("noise"), errors.NotFound("no such thing")])

    async def fail(*_: object) -> None:
        raise group

    monkeypatch.setattr("tests.unit.ctl.world._Settings.read", fail)
    outcome = ctl("list")
    assert outcome.code == 4
    assert outcome.err == "Error: no such thing\n"


def test_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    from ctl.__main__ import run

    assert run(["list"]) == 2
    assert "TIDELOG_MONGODB_URI" in capsys.readouterr().err
