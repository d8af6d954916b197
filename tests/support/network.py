"""A network of machines inside this one, whose links can be cut, for real and one way if wanted.

    tests, ctl ── bridge ─┬─ node 0     each machine is a network namespace with its own address;
                          ├─ node 1     a cut gives the sender a wrong hardware address of the
                          ├─ agent 0    receiver, so that packets are lost without a word: the
                          └─ agent 1    peer sees silence, as with a pulled cable or a firewall

All of it lies within a network namespace of its own (`in_own_network`, `entering`), so nothing of
it can be reached from outside or is left behind. Root may make one, and others where the system
grants them user namespaces; where neither, `hindrance()` says so.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from tests.support.mongod.machine import Machine
from tests.support.product import ROOT
from tests.support.reaper import REAPER

_INSIDE: Final = "TIDELOG_TESTS_OWN_NETWORK"
_PREFIX: Final = "10.99.0"
_BRIDGE: Final = "tests0"
_NOWHERE: Final = "02:00:00:00:00:01"
"""A hardware address that nobody has."""
_TEST_WITHIN_S: Final = 200.0


def is_inside() -> bool:
    """Whether this process has a network of its own."""
    return bool(os.environ.get(_INSIDE))


@functools.cache
def entering() -> tuple[str, ...]:
    """What to put before a command so that it gets a network of its own; empty where that is not
    allowed here."""
    options = ("--net",) if os.geteuid() == 0 else ("--net", "--map-root-user")
    prefix = ("unshare", *options, "--")
    try:
        trial = [*prefix, "ip", "link", "add", "t0", "type", "veth", "peer", "name", "t1"]
        subprocess.run(trial, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ()
    return prefix


def hindrance() -> str:
    """Why there can be no network here; empty if there can be one."""
    if is_inside() or entering():
        return ""
    return "no network namespaces: they need root, or user namespaces, and the program ip"


def environment_inside() -> dict[str, str]:
    """The environment of a command after `entering()`."""
    return {**os.environ, _INSIDE: "1"}


def in_own_network(test: Callable[..., None]) -> Callable[..., None]:
    """A test that is run again, by itself, in a network of its own; what it needs beside light
    fixtures it has to make inside. Skipped with the reason where there can be none."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        if is_inside():
            test(**given)
            return
        if hindrance():
            pytest.skip(hindrance())
        name = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        # The cache is the outer run's: what it keeps there says which tests failed.
        options = ["-q", "-s", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
        inside = environment_inside()
        inside.pop("PYTEST_XDIST_WORKER", None)
        done = subprocess.run(
            [*entering(), sys.executable, "-m", "pytest", *options, name],
            cwd=ROOT,
            env=inside,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TEST_WITHIN_S,
            check=False,
        )
        sys.stdout.write(done.stdout)
        assert done.returncode == 0, f"failed inside a network of its own: see above ({name})"

    return run


class Network:
    """The machines and their links. A context manager; only within a network of one's own."""

    def __init__(self) -> None:
        assert is_inside(), "machines are made within a network of their own: see entering()"
        self._holders: list[subprocess.Popen[bytes]] = []
        self._directory: Path | None = None
        self._cut: set[tuple[Machine, Machine]] = set()
        self._making = threading.Lock()

    def __enter__(self) -> Self:
        self._directory = REAPER.make_directory("tidelog-network-")
        _ip("link", "set", "lo", "up")
        _ip("link", "add", _BRIDGE, "type", "bridge")
        _ip("addr", "add", f"{_PREFIX}.1/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for holder in self._holders:
            REAPER.reap(holder)
        self._holders.clear()
        _ip("link", "del", _BRIDGE)
        if self._directory is not None:
            REAPER.remove_directory(self._directory)

    def machine(self) -> Machine:
        """One more machine, linked to all. Replica sets of one cluster ask for theirs at once."""
        with self._making:
            return self._make()

    def _make(self) -> Machine:
        assert self._directory is not None, "the network is not open"
        number = len(self._holders) + 2
        # The namespace lives as long as a process does that only sleeps in it.
        holder = REAPER.start(["unshare", "--net", "sleep", "infinity"], self._directory / "out")
        self._holders.append(holder)
        _wait_apart(holder.pid)
        machine = Machine(f"{_PREFIX}.{number}", f"/proc/{holder.pid}/ns/net")
        enter = machine.enter
        link = f"m{number}"
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        _ip("link", "set", link, "master", _BRIDGE, "up")
        _ip("link", "set", "lo", "up", enter=enter)
        _ip("addr", "add", f"{machine.address}/24", "dev", "eth0", enter=enter)
        _ip("link", "set", "eth0", "up", enter=enter)
        return machine

    def cut(
        self, some: Iterable[Machine], others: Iterable[Machine], *, one_way: bool = False
    ) -> None:
        """What some send to the others is lost from now on, and what those send to them unless
        `one_way`."""
        receivers = list(others)
        for one in some:
            for other in receivers:
                self._lose(one, other)
                if not one_way:
                    self._lose(other, one)

    def heal(self) -> None:
        """Mend every link."""
        for sender, receiver in sorted(self._cut, key=str):
            _ip("neigh", "del", receiver.address, "dev", "eth0", enter=sender.enter)
        self._cut.clear()

    def _lose(self, sender: Machine, receiver: Machine) -> None:
        wrong = ("lladdr", _NOWHERE, "dev", "eth0", "nud", "permanent")
        _ip("neigh", "replace", receiver.address, *wrong, enter=sender.enter)
        self._cut.add((sender, receiver))


def _ip(*arguments: str, enter: Sequence[str] = ()) -> None:
    done = subprocess.run(
        [*enter, "ip", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


def _wait_apart(pid: int) -> None:
    """Until the process has left our network."""
    own = Path("/proc/self/ns/net").readlink()
    end = time.monotonic() + 10.0
    while Path(f"/proc/{pid}/ns/net").readlink() == own:
        assert time.monotonic() < end, "a machine gets no network of its own"
        time.sleep(0.005)
