"""The exit status tells a supervisor what kind of end it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent.__main__ import FAULT, REFUSED, UNREACHABLE, USAGE, main, status_of
from agent.errors import (
    ConfigError,
    Conflict,
    IntegrityError,
    NodeUnavailable,
    PermissionDenied,
    StoreUnavailable,
    UnsupportedVersion,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("mongos"), USAGE),
        (PermissionDenied("wrong password"), USAGE),
        (Conflict("a second agent"), REFUSED),
        (UnsupportedVersion("newer schema"), REFUSED),
        (StoreUnavailable("away"), UNREACHABLE),
        (NodeUnavailable("away"), UNREACHABLE),
        (IntegrityError("?"), FAULT),
        (ExceptionGroup("g", [StoreUnavailable("away"), Conflict("second")]), REFUSED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_branch_has_its_status(error: Exception, status: int) -> None:
    assert status_of(error) == status


def test_bad_flags_are_bad_usage() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--log-level", "deafening"])
    assert caught.value.code == USAGE


def test_the_version_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("tidelog-agent ")


def test_the_process_ends_though_a_thread_of_the_driver_waits_for_a_server() -> None:
    script = """
import threading, time
from agent import __main__ as agent

def main():
    threading.Thread(target=time.sleep, args=(3600,)).start()
    print("handed over")
    return 5

agent.main = main
agent.program()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (5, "handed over\n")
