"""No test process and no scratch directory outlives the run, however the run ends.

Contexts clean up behind themselves; `atexit` covers an interpreter that ends without leaving them;
and a child process that only waits for the end of a pipe covers one that is killed. Processes are
named by their id, never by a pattern, and an id is dropped as soon as its process was waited for.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

_WATCHDOG = """
import os, shutil, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
pids, directories = set(), set()
for line in sys.stdin:
    verb, _, what = line.rstrip("\\n").partition(" ")
    kept = pids if verb in ("pid", "no-pid") else directories
    (kept.discard if verb.startswith("no-") else kept.add)(what)
for pid in pids:
    try:
        os.kill(int(pid), signal.SIGKILL)
    except ProcessLookupError:
        pass
for directory in directories:
    shutil.rmtree(directory, ignore_errors=True)
"""


class Child(Protocol):
    """A started process: `subprocess.Popen`, or one that was forked for us."""

    @property
    def pid(self) -> int:
        """Its process id."""
        raise NotImplementedError

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises `subprocess.TimeoutExpired`."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL."""


class Reaper:
    """Knows every process and directory the test run has made and not yet removed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: dict[int, Child] = {}
        self._directories: set[Path] = set()
        self._watchdog: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: Sequence[str],
        output: Path,
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in its own session, both outputs appended to one file."""
        with output.open("ab") as sink:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                cwd=directory,
                start_new_session=True,
            )
        self.adopt(child)
        return child

    def adopt(self, child: Child) -> None:
        """Look after a process that was started elsewhere."""
        with self._lock:
            self._children[child.pid] = child
            self._tell(f"pid {child.pid}")

    def reap(self, child: Child) -> int:
        """Kill the process if it still runs, wait for it, and return its exit status."""
        if child.poll() is None:
            child.kill()
        status = child.wait()
        with self._lock:
            if self._children.pop(child.pid, None) is not None:
                self._tell(f"no-pid {child.pid}")
        return status

    def make_directory(self, prefix: str) -> Path:
        """Make a scratch directory that disappears with the run."""
        return self.own_directory(Path(tempfile.mkdtemp(prefix=prefix)))

    def own_directory(self, directory: Path) -> Path:
        """Make this directory if need be; it disappears with the run."""
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._directories.add(directory)
            self._tell(f"dir {directory}")
        return directory

    def remove_directory(self, directory: Path) -> None:
        """Remove a scratch directory now."""
        shutil.rmtree(directory, ignore_errors=True)
        with self._lock:
            self._directories.discard(directory)
            self._tell(f"no-dir {directory}")

    def keep_directory(self, directory: Path) -> None:
        """Leave this directory behind, for somebody to look at."""
        with self._lock:
            self._directories.discard(directory)
            self._tell(f"no-dir {directory}")

    def reap_all(self) -> None:
        """Kill and remove whatever is left."""
        for child in list(self._children.values()):
            self.reap(child)
        for directory in list(self._directories):
            self.remove_directory(directory)
        with self._lock:
            watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            assert watchdog.stdin is not None
            with contextlib.suppress(OSError):
                watchdog.stdin.close()
            watchdog.wait()

    def _tell(self, line: str) -> None:
        if self._watchdog is None:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHDOG],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.write(line.encode() + b"\n")
        self._watchdog.stdin.flush()


def send_signal(child: Child, number: signal.Signals) -> None:
    """Signal a process that may already be gone."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)


REAPER = Reaper()
atexit.register(REAPER.reap_all)
