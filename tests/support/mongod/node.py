"""One mongod process: start, stop, kill, pause."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakSet

from tests.support.mongod.machine import HERE, Machine
from tests.support.mongod.options import Member
from tests.support.mongod.ports import free_port
from tests.support.reaper import REAPER, send_signal

_PORT_TRIES = 5
_FRAMES = 25
_LAST_WORDS = 8
_PORT_TAKEN = 48  # mongod's exit status when it cannot bind


class MongodFailedError(RuntimeError):
    """The server ended when it should have run; its last log lines follow."""

    def __init__(self, node: MongodNode, status: int | None) -> None:
        super().__init__(f"mongod on port {node.port}: exit status {status}\n{node.epitaph()}")


_nodes: WeakSet[MongodNode] = WeakSet()


def died() -> list[MongodNode]:
    """Servers of this test process that ended by themselves and were not started again."""
    return [node for node in list(_nodes) if node.has_died]


def check_alive() -> None:
    """Whoever waits for a server does not wait for one that is no more. Raises
    `MongodFailedError`, with what it last said."""
    for node in died():
        raise MongodFailedError(node, node.exit_status)


class MongodNode:
    """One server. Its data stay when the process goes, so it can be started again."""

    def __init__(
        self,
        program: Path,
        directory: Path,
        arguments: Sequence[str],
        member: Member,
        machine: Machine = HERE,
    ) -> None:
        self.member = member
        self.machine = machine
        self.port = free_port()
        self.directory = directory
        self.log = directory / "mongod.log"
        self._program = program
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ended = False
        _nodes.add(self)

    def __repr__(self) -> str:
        return f"MongodNode({self.host!r}, running={self.is_running})"

    @property
    def host(self) -> str:
        """`host:port`, as in the configuration of the set."""
        return f"{self.machine.address}:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the running process."""
        assert self._process is not None, "this node does not run"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def has_died(self) -> bool:
        """Whether the process ended though nobody here ended it."""
        if self._is_ended or self._process is None:
            return False
        return self._process.poll() is not None

    @property
    def exit_status(self) -> int | None:
        """That of the process, where it has ended and was not started again."""
        return None if self._process is None else self._process.poll()

    @property
    def holds_data(self) -> bool:
        """Whether an agent belongs beside it."""
        return not self.member.arbiter

    def spawn(self) -> None:
        """Start the process without waiting for it to answer."""
        assert not self.is_running, f"{self!r} runs already"
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        command = [*self.machine.enter, str(self._program), "--dbpath", str(data)]
        command += ["--bind_ip", self.machine.address, "--port", str(self.port), "--nounixsocket"]
        command += ["--logpath", str(self.log), "--logappend", *self._arguments]
        self._is_ended = False
        self._process = REAPER.start(command, self.directory / "mongod.out")

    def start(self, within_s: float = 30.0) -> None:
        """Start the process and wait until it accepts connections."""
        self.spawn()
        self.wait_listening(within_s)

    def wait_listening(self, within_s: float = 30.0, *, may_move: bool = False) -> None:
        """Wait for the port; a fresh node (`may_move`) whose port was snatched takes another."""
        deadline = time.monotonic() + within_s
        tries = _PORT_TRIES
        while not _accepts(self.machine.address, self.port):
            status = None if self._process is None else self._process.poll()
            if status == _PORT_TAKEN and may_move and tries > 0:
                tries -= 1
                self._forget()
                self.port = free_port()
                self.spawn()
            elif status is not None or time.monotonic() > deadline:
                raise MongodFailedError(self, status)
            time.sleep(0.02)

    def stop(self, within_s: float = 30.0) -> None:
        """Ask it to end cleanly, and wait for that."""
        if self._process is None:
            return
        self._is_ended = True
        send_signal(self._process, signal.SIGCONT)
        send_signal(self._process, signal.SIGTERM)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise MongodFailedError(self, None) from None
        finally:
            self._forget()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal, without any goodbye."""
        if self._process is None:
            return
        self._is_ended = True
        send_signal(self._process, number)
        if number is not signal.SIGKILL:
            self._process.wait(30)
        self._forget()

    def pause(self) -> None:
        """Stop the process where it stands; its connections stay open and silent."""
        assert self._process is not None
        send_signal(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None
        send_signal(self._process, signal.SIGCONT)

    def epitaph(self) -> str:
        """What it logged of its own death: the last fatal lines, where in its code it was, and what
        it last said of the connection that it was serving."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        said = [json.loads(line) for line in lines if line.startswith("{")]
        fatal = [line for line in said if line["s"] == "F"]
        if not fatal:
            return self.log_tail()
        who = fatal[-1]["ctx"]
        frames = [one["attr"]["frame"] for one in said if one["msg"] == "Frame"]
        where = [str(frame.get("C", frame.get("s", "?")))[:150] for frame in frames]
        served = [line for line in said if line["ctx"] == who and line["s"] != "F"]
        talk = [json.dumps(line)[:600] for line in served if line["msg"] != "Frame"]
        return "\n".join([*map(str, fatal[-4:]), *where[:_FRAMES], *talk[-_LAST_WORDS:]])

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log, for messages."""
        text = ""
        for path in (self.log, self.directory / "mongod.out"):
            if path.exists():
                text += "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) + "\n"
        return text

    def _forget(self) -> None:
        if self._process is not None:
            REAPER.reap(self._process)
            self._process = None


def _accepts(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((address, port)) == 0
