"""The parser tree: light, complete, and the same before and after a command's name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from ctl.app import COMMANDS, app
from ctl.commands.completion import PROGRAMS, SHELLS, script
from ctl.invocation import Invocation
from tests.unit.ctl.world import Ctl

HEAVY = ("motor", "pymongo", "bson", "pydantic", "rich", "yaml", "agent.store")


def _imported(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_parser_tree_imports_nothing_heavy() -> None:
    found = _imported("import ctl.__main__, ctl.app")
    assert not {name for name in found if name.startswith(HEAVY)}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_imports_no_driver_and_no_storage(name: str) -> None:
    found = _imported(f"import ctl.commands.{name.replace('-', '_')}")
    assert not found & {"motor", "agent.store.connection", "agent.storage", "pymongo.mongo_client"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_the_global_options(ctl: Ctl, name: str) -> None:
    outcome = ctl(name, "--help")
    assert outcome.code == 0
    assert "--mongodb-uri" in outcome.out
    assert "--out" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_every_module_is_listed() -> None:
    root = Path(__file__).parents[3] / "ctl" / "commands"
    modules = {path.stem.replace("_", "-") for path in root.glob("[a-z]*.py")}
    assert modules == set(COMMANDS)


def test_an_error_of_usage_is_one_sentence(ctl: Ctl) -> None:
    missing = ctl("encryption", "enable").err
    assert missing.startswith("Error: missing option '--provider'. Choose from: passphrase, keyf")
    both = ctl("restore", "2026-03-01T12:00:00Z", "--time", "1767323045")
    assert both.err.startswith("Error: NAME and --time exclude each other")


@pytest.mark.parametrize(
    "line",
    [
        ("verify", "--max-age", "1d"),
        ("oplog-replay", "--start", "1767323045,2", "--end", "1767323045,1", "-y"),
    ],
)
def test_flags_that_mean_nothing_together_are_usage(ctl: Ctl, line: tuple[str, ...]) -> None:
    assert ctl(*line).code == 2
    assert not ctl.world.operations


def test_help_lists_the_commands(ctl: Ctl) -> None:
    outcome = ctl("--help")
    assert all(
        f"  {name} " in outcome.out and text in outcome.out for name, text in COMMANDS.items()
    )


def test_version_needs_no_cluster(ctl: Ctl) -> None:
    short = ctl("version", "--short").out
    assert ctl("--version").out == short
    assert ctl("version", "-o", "json").json["version"] == short.strip()


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_serves_both_names(ctl: Ctl, shell: str) -> None:
    outcome = ctl("completion", shell)
    assert outcome.code == 0
    for program in PROGRAMS:
        assert script(shell, program) in outcome.out
    assert "_CTL_COMPLETE" in outcome.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "ctl de",
            ["decrypt", "delete-backup", "delete-pitr", "describe-backup", "describe-restore"],
        ),
        ("ctl backup --comp", ["--compression", "--compression-level"]),
        ("ctl backup --compression z", ["zstd"]),
    ],
)
def test_completion_answers(words: str, expected: list[str]) -> None:
    arguments = words.split()
    environment = {
        "_CTL_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(arguments) - 1),
        "PATH": "/bin:/usr/bin",
    }
    done = subprocess.run(
        [sys.executable, "-m", "ctl"], env=environment, capture_output=True, text=True, check=True
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == expected


def _address(arguments: list[str]) -> str | None:
    invocation = Invocation()
    with app.make_context("ctl", list(arguments), obj=invocation) as ctx:
        name, command, rest = app.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        assert command is not None
        command.make_context(name, rest, parent=ctx)
    return invocation.mongodb_uri


def test_what_is_written_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBM_MONGODB_URI", "mongodb://pbm")
    assert _address(["list"]) == "mongodb://pbm"
    monkeypatch.setenv("TIDELOG_MONGODB_URI", "mongodb://tidelog")
    assert _address(["list"]) == "mongodb://tidelog"
    assert _address(["--mongodb-uri", "mongodb://before", "list"]) == "mongodb://before"
    assert _address(["list", "--mongodb-uri", "mongodb://after"]) == "mongodb://after"


def test_a_command_that_does_not_exist(ctl: Ctl) -> None:
    outcome = ctl("describe")
    assert outcome.code == 2
    assert outcome.err.startswith("Error: no such command 'describe'")


def test_the_tree_is_a_click_group() -> None:
    assert isinstance(app, click.Group)
