"""Programs of the product, started by forking a process that has imported it already.

See `tests.support.warm_server`. Whatever changes how a program is loaded (another interpreter, a
preloaded library) is started the ordinary way; so is what is looked at from
outside (`ps`, `/proc`), since a forked process shows the command line of its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.support.product import command_of, environment

_NUMBER = struct.Struct("<i")
_LENGTH = struct.Struct("<I")
_PROGRAMS = ("agent", "ctl")
_LOADING = ("LD_", "PYTHON", "MALLOC_")
"""Environment that is read before a program's first line, or while it is imported."""
_START_WITHIN_S = 60.0


class WarmProcess:
    """A started program, with what tests use of `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, command: list[str]) -> None:
        self._connection = connection
        self._command = command
        self._lock = threading.Lock()
        self.returncode: int | None = None
        connection.settimeout(_START_WITHIN_S)
        self.pid: int = _NUMBER.unpack(connection.recv(_NUMBER.size))[0]

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises `subprocess.TimeoutExpired`."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self._command, timeout or 0.0)
        return status

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, signal.SIGKILL)

    def _look(self, within_s: float | None) -> int | None:
        with self._lock:
            if self.returncode is None:
                ready, _, _ = select.select([self._connection], [], [], within_s)
                if ready:
                    told = self._connection.recv(_NUMBER.size)
                    self.returncode = _NUMBER.unpack(told)[0] if told else -signal.SIGKILL
                    self._connection.close()
            return self.returncode


class _Server:
    """The one of this process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address: str | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> socket.socket:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._address))
        return connection

    def _start(self) -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            # In the abstract namespace: there is no file to remove.
            self._address = f"\0tidelog-tests-{os.getpid()}-{os.urandom(4).hex()}"
            listening.bind(self._address)
            listening.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.warm_server", str(listening.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
                env=environment(),
                start_new_session=True,
            )
            atexit.register(_end, self._process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its input, with which it ends."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(_START_WITHIN_S)


_server = _Server()


def can_start(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a command line is one of the product's and nothing about its loading is special."""
    if not any(list(command[:3]) == command_of(program) for program in _PROGRAMS):
        return False
    usual = environment()
    special = {name for name in {*env, *usual} if name.startswith(_LOADING)}
    return all(env.get(name) == usual.get(name) for name in special)


def start(
    command: Sequence[str],
    env: Mapping[str, str],
    streams: Sequence[IO[bytes]],
    namespace: str = "",
) -> WarmProcess:
    """Start what `can_start` allows, with these standard streams, in a session of its own, in the
    network namespace with this file if one is given."""
    asked = {
        "program": command[2],
        "arguments": list(command[3:]),
        "environment": dict(env),
        "directory": str(Path.cwd()),
        "namespace": namespace,
    }
    text = json.dumps(asked).encode()
    connection = _server.connect()
    socket.send_fds(connection, [_LENGTH.pack(len(text))], [each.fileno() for each in streams])
    connection.sendall(text)
    return WarmProcess(connection, list(command))


def run(
    command: Sequence[str], env: Mapping[str, str], *, stdin: str, within_s: float
) -> tuple[int, str, str]:
    """Exit status and both outputs. Raises `subprocess.TimeoutExpired`, the program killed."""
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        source.write(stdin.encode())
        source.seek(0)
        process = start(command, env, [source, out, err])
        try:
            status = process.wait(within_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return status, out.read().decode(), err.read().decode()
