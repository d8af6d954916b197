"""Where scratch servers live on this host, and what earlier ones left behind.

    scratchDir/
      tidelog-scratch-<operation>-<n>/  0700, everything of one server
        lock                            held (flock) by the agent that made it, as long as it lives
        key                             0600, the password of the server
        data/  mongod.log

The lock is the mark of ownership: the kernel lets it go with the process, however that ends, so a
directory whose lock is free is a leftover and nothing else is. Its mongod, if it still runs, is
known by the data directory among its arguments.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from agent.errors import ConfigError, Refused
from agent.wire.wording import size

PREFIX: Final = "tidelog-scratch-"
RESERVE_BYTES: Final = 1 << 30
"""Left free on the disk whatever a restore needs."""
_GONE_WITHIN_S: Final = 10.0
_SETTING: Final = "verify.scratchDir"

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """The local settings that scratch servers need."""

    directory: Path | None = None
    mongod: Path | None = None

    def is_usable(self) -> bool:
        """Whether this host may be asked for a scratch server."""
        return self.directory is not None

    def program(self) -> Path:
        """The server to start. Raises `ConfigError`."""
        found = str(self.mongod) if self.mongod is not None else shutil.which("mongod")
        if found is None or not os.access(found, os.X_OK):
            raise ConfigError(
                f"there is no mongod to restore the backup into: {found or 'none on PATH'}",
                hint="set verify.mongod in this agent's settings, to a program of the version of"
                " the backup",
            )
        return Path(found)

    def root(self) -> Path:
        """The directory of all. Raises `ConfigError` where none is set or it cannot be used."""
        if self.directory is None:
            raise ConfigError(
                f"no agent has {_SETTING}: a proof needs a directory to restore into",
                hint=f"set TIDELOG_VERIFY__SCRATCHDIR (or {_SETTING} in the file given with"
                " --config) for one of them, and start it anew",
            )
        if not self.directory.is_dir() or not os.access(self.directory, os.W_OK | os.X_OK):
            raise ConfigError(
                f"{_SETTING} is {self.directory}, and the agent cannot write there",
                hint="make it a directory of the user that the agent runs as",
            )
        return self.directory

    def require_space(self, needed_bytes: int) -> None:
        """Raises `Refused` where the disk has less free than that and a reserve."""
        root = self.root()
        free = shutil.disk_usage(root).free
        if free < needed_bytes + RESERVE_BYTES:
            raise Refused(
                f"{root} has {size(free)} free, and restoring takes about {size(needed_bytes)}"
                f" beside a reserve of {size(RESERVE_BYTES)}",
                hint=f"make room, or set {_SETTING} to a larger disk",
            )

    def sweep(self) -> list[Path]:
        """Remove what died agents left, and end its servers; answers the directories. Blocks."""
        if self.directory is None or not self.directory.is_dir():
            return []
        removed = []
        for path in sorted(self.directory.glob(f"{PREFIX}*")):
            with suppress(OSError), _owned(path, make=False) as is_ours:
                if is_ours:
                    remove(path)
                    removed.append(path)
                    log.info("scratch.leftover_removed", path=str(path))
        return removed

    @contextmanager
    def made(self, name: str) -> Iterator[Path]:
        """A new directory of this agent's. What remains of it is removed by `remove`, or by the
        next sweep. Blocks shortly. Raises `ConfigError`, `Refused`."""
        path = self.root() / f"{PREFIX}{name}"
        self.sweep()
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            raise Refused(f"{path} belongs to another agent that is alive") from None
        with _owned(path, make=True):
            yield path


@contextmanager
def _owned(path: Path, *, make: bool) -> Iterator[bool]:
    """Hold the lock of a directory; whether it was free. Raises `OSError` where there is none."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if make else 0)
    handle = os.open(path / "lock", flags, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """End every server on this directory, and remove it. Blocks."""
    end = time.monotonic() + _GONE_WITHIN_S
    while (found := _servers_on(path)) and time.monotonic() < end:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(path, ignore_errors=True)


def _servers_on(path: Path) -> list[int]:
    """Processes with our data directory among their arguments; zombies have none."""
    wanted = os.fsencode(path / "data")
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if wanted in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found
