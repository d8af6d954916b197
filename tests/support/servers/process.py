"""One server process: started, waited for, killed with its directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.reaper import REAPER


class ServerFailedError(RuntimeError):
    """A server ended or never answered; the last lines of its log follow."""


def program(name: str) -> str:
    """A program that a package brought into this environment."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise ServerFailedError(f"{name} is not installed; run 'make bootstrap'")
    return found


class ServerProcess:
    """Ends with `stop`, at the latest with the test run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = REAPER.make_directory(f"{name}-")
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Everything it printed."""
        return self.directory / "log"

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it; whether it answers is for the caller to wait for."""
        self._child = REAPER.start(
            command,
            self.log,
            environment={**_clean(), **(environment or {})},
            directory=self.directory,
        )

    def check(self) -> None:
        """Raise `ServerFailedError` if it has ended."""
        if self._child is not None and self._child.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise ServerFailedError(f"{self.name} ended with {self._child.returncode}:\n{tail}")

    def stop(self) -> None:
        """Kill it and remove what it stored."""
        if self._child is not None:
            REAPER.reap(self._child)
            self._child = None
        REAPER.remove_directory(self.directory)


def _clean() -> dict[str, str]:
    """The environment without what would change how cloud software behaves."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
