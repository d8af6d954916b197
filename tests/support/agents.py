"""Agents as real processes, one beside each data node."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from tempfile import gettempdir
from types import TracebackType
from typing import Any, Self

from tests.support import warm
from tests.support.eventually import eventually
from tests.support.mongod import HERE, Machine, MongodNode, ReplicaSet
from tests.support.product import command_of, environment
from tests.support.reaper import REAPER, Child, send_signal

_REGISTRY = "tidelogAgents"


class AgentFailedError(AssertionError):
    """An agent ended, or did not, against what the test expects; its last log lines follow."""

    def __init__(self, agent: AgentProcess, claim: str) -> None:
        super().__init__(f"{agent!r}: {claim}\n{agent.log_tail()}")


class AgentProcess:
    """One agent. It may be killed, paused and started again; every run adds to one log."""

    def __init__(
        self,
        replset: ReplicaSet,
        node: MongodNode,
        log: Path,
        *,
        arguments: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
        uri: str | None = None,
        lead: ReplicaSet | None = None,
        machine: Machine = HERE,
    ) -> None:
        self.replset = replset
        self.machine = machine
        self.lead = lead or replset
        """Where its registry is."""
        self.node = node
        self.log = log
        self.extra = dict(extra or {})
        self.arguments = list(arguments)
        self.is_warm = True
        """Whether it may be forked from a process that has imported it: not where `/proc` is asked
        about it."""
        self._uri = uri or replset.uri_of(node)
        self._process: Child | None = None
        self._end_expected = False
        self._status: int | None = None

    def __repr__(self) -> str:
        return f"AgentProcess({self.id!r}, running={self.is_running})"

    @property
    def id(self) -> str:
        """Its id in the registry: `replset/host:port`."""
        return f"{self.replset.name}/{self.node.host}"

    @property
    def pid(self) -> int:
        """The id of the process, running or ended."""
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether there is a process, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, faults: str = "") -> None:
        """Start the process; `faults` arms its fault points for this run."""
        assert not self.is_running, f"{self!r} runs already"
        # By the environment: a connection string may hold a password, and everybody can read `ps`.
        chosen = {"TIDELOG_MONGODB_URI": self._uri, **self.extra}
        if faults:
            chosen["TIDELOG_FAULTS"] = faults
        command = [*command_of("agent"), "--log-format", "json", *self.arguments]
        env = environment(chosen)
        if self.is_warm and warm.can_start(command, env):
            self._process = self._start_warm(command, env)
        else:
            command = [*self.machine.enter, *command]
            self._process = REAPER.start(command, self.log, environment=env)
        self._end_expected = False
        self._status = None

    def _start_warm(self, command: Sequence[str], env: Mapping[str, str]) -> Child:
        with Path("/dev/null").open("rb") as source, self.log.open("ab") as sink:
            child = warm.start(command, env, [source, sink, sink], self.machine.namespace)
        REAPER.adopt(child)
        return child

    def announcement(self) -> dict[str, Any] | None:
        """Its document in the registry, if it is this very process's."""
        found = self.lead.client().admin[_REGISTRY].find_one({"_id": self.id})
        return found if found is not None and found.get("pid", self.pid) == self.pid else None

    def wait_announced(self, within_s: float = 20.0) -> dict[str, Any]:
        """Wait until the process has told the registry of itself."""

        def ask() -> dict[str, Any] | None:
            if not self.is_running:
                raise AgentFailedError(self, f"ended with status {self.reap()} before it announced")
            found = self.announcement()
            return found if found and isinstance(found.get("heartbeat_at"), datetime) else None

        found = eventually(ask, within_s, retry_on=(), describe=self.log_tail)
        assert found is not None
        return found

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._end_expected = True
        if self._process is not None:
            self.reap()

    def pause(self) -> None:
        """SIGSTOP: it stands still and does not know."""
        assert self._process is not None
        send_signal(self._process, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        send_signal(self._process, signal.SIGCONT)

    def terminate(self, within_s: float = 20.0) -> int:
        """SIGTERM; returns the exit status."""
        self.ask_to_stop()
        return self.wait_ended(within_s)

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting; a paused process is woken for it."""
        assert self._process is not None
        self._end_expected = True
        self.resume()
        send_signal(self._process, signal.SIGTERM)

    def wait_ended(self, within_s: float = 20.0) -> int:
        """Wait until the process has ended by itself; returns its exit status."""
        assert self._process is not None
        self._end_expected = True
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AgentFailedError(self, f"did not end within {within_s:g} s") from None
        return self.reap()

    def check_running(self) -> None:
        """Fail if the process ended and the test did not ask for that."""
        if self._process is not None and not self._end_expected and not self.is_running:
            raise AgentFailedError(self, f"ended by itself with status {self.reap()}")

    def reap(self) -> int:
        """Make sure that the process is gone; returns its exit status."""
        assert self._process is not None
        if self._status is None:
            self._status = REAPER.reap(self._process)
        return self._status

    def log_text(self) -> str:
        """Everything it logged in all its runs."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def log_tail(self, lines: int = 25) -> str:
        """The end of its log, for messages."""
        return "\n".join(self.log_text().splitlines()[-lines:])


class Agents:
    """An agent for each data node of one or more replica sets. A context manager.

    Leaving it asks the agents that still run to stop, and fails if one of them ended unasked or
    does not stop with status 0; with `graceful=False` they are killed and nothing is claimed.
    Those of a sharded cluster find each other at its config servers, the `lead`.
    """

    def __init__(
        self,
        *replsets: ReplicaSet,
        arguments: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
        uri_of: Callable[[ReplicaSet, MongodNode], str] | None = None,
        directory: Path | None = None,
        graceful: bool = True,
        lead: ReplicaSet | None = None,
        is_warm: bool = True,
        machine: Callable[[], Machine] = lambda: HERE,
    ) -> None:
        self._owned = directory is None
        self.directory = directory or Path(gettempdir(), f"tidelog-agents-{token_hex(6)}")
        self._graceful = graceful
        self.all = [
            AgentProcess(
                replset,
                node,
                self.directory / f"{replset.name}-{node.port}.log",
                arguments=arguments,
                extra=extra,
                uri=uri_of(replset, node) if uri_of is not None else None,
                lead=lead,
                machine=machine(),
            )
            for replset in replsets
            for node in replset.data_nodes
        ]
        for agent in self.all:
            agent.is_warm = is_warm

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                sys.stderr.write(self.log_tails())
            elif self._graceful:
                self.stop()
        finally:
            self.close()

    def __iter__(self) -> Iterator[AgentProcess]:
        return iter(self.all)

    def of(self, node: MongodNode | str) -> AgentProcess:
        """The agent of a node, given the node, its `host:port`, or the agent's id."""
        host = node.host if isinstance(node, MongodNode) else node.rpartition("/")[2]
        return next(agent for agent in self.all if agent.node.host == host)

    def start(self, within_s: float = 20.0) -> None:
        """Start all of them and wait until each has announced itself."""
        if self._owned:
            REAPER.own_directory(self.directory)
        for agent in self.all:
            if not agent.is_running:
                agent.start()
        for agent in self.all:
            agent.wait_announced(within_s)

    def stop(self, within_s: float = 20.0) -> None:
        """Ask those that run to stop; all must do so with status 0."""
        for agent in self.all:
            agent.check_running()
        running = [agent for agent in self.all if agent.is_running]
        for agent in running:
            agent.ask_to_stop()
        for agent in running:
            status = agent.wait_ended(within_s)
            if status != 0:
                raise AgentFailedError(agent, f"stopped with status {status}")

    def log_tails(self) -> str:
        """The end of every agent's log."""
        return "\n".join(f"--- {agent!r}\n{agent.log_tail()}" for agent in self.all) + "\n"

    def close(self) -> None:
        """Kill what is left and remove the logs, unless they lie in a directory of the caller's."""
        for agent in self.all:
            agent.kill()
        if self._owned:
            REAPER.remove_directory(self.directory)
