"""What is measured: a replica set, agents beside it, a repository, and what each of them costs.

CPU seconds and peak memory are the kernel's (`/proc`), so they count the agent and mongod alone and
hold on a busy machine too; wall seconds do not, which is why limits run in the same minutes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet, SetOptions
from tests.support.mongod.options import Member
from tests.support.mongod.ports import free_port

LONG_S = 3600.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measure:
    """One run of something. Seconds of CPU are those of all agents and of all mongods."""

    wall_s: float
    agent_cpu_s: float = 0.0
    mongod_cpu_s: float = 0.0
    agent_peak_mib: float = 0.0
    requests: float = 0.0
    """To the repository: calls of the storage driver, of whatever kind."""
    load: float = 0.0

    def to_json(self) -> dict[str, float]:
        """Rounded: the third digit is noise."""
        return {name: round(value, 3) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Cost:
    """What processes have used so far, by the kernel: seconds of CPU in all, and the peak of the
    largest."""

    cpu_s: float
    peak_mib: float

    @classmethod
    def of(cls, pids: list[int]) -> Cost:
        """Of running processes."""
        return cls(sum(map(_cpu_s, pids)), max(map(_peak_mib, pids), default=0.0))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class Rig:
    """A set with so many nodes and an agent beside each; a context manager."""

    def __init__(
        self,
        nodes: int = 1,
        *,
        cache_gb: float = 3.0,
        oplog_mb: int = 4096,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.replset = ReplicaSet(
            SetOptions(
                name="bench",
                members=(Member(),) * nodes,
                cache_gb=cache_gb,
                oplog_mb=oplog_mb,
                arguments=arguments,
            )
        )
        self.directory = Path(tempfile.mkdtemp(prefix="tidelog-bench-"))
        self.repository = self.directory / "repository"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._stack.enter_context(self.replset)
        self.agents = Agents(self.replset, is_warm=False)
        for agent in self.agents.all:
            agent.extra["TIDELOG_LISTEN"] = f"127.0.0.1:{free_port()}"
        self._stack.enter_context(self.agents)
        self.ctl = Ctl(self.replset.uri(), is_warm=False)
        self.repository.mkdir()
        self.ctl.configure_filesystem(self.repository)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def client(self) -> Any:
        """The set's own client."""
        return self.replset.client()

    @property
    def uri(self) -> str:
        """Of the primary alone."""
        return self.replset.uri_of(self.replset.primary())

    def ask(self, *arguments: str) -> Any:
        """Run `ctl`, demand success, answer its JSON."""
        return self.ctl.ok(*arguments, within_s=LONG_S)

    @contextmanager
    def measured(self) -> Iterator[Callable[[], Measure]]:
        """Measure what happens inside; call what it yields afterwards."""
        agents = [agent.pid for agent in self.agents.all]
        servers = [node.pid for node in self.replset.nodes]
        requested = self._requests()
        for pid in agents:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # its peak begins anew
        agent, server = Cost.of(agents), Cost.of(servers)
        begun = time.monotonic()
        found: list[Measure] = []
        yield lambda: found[0]
        wall_s, agent_after = time.monotonic() - begun, Cost.of(agents)
        found.append(
            Measure(
                wall_s=wall_s,
                agent_cpu_s=agent_after.cpu_s - agent.cpu_s,
                mongod_cpu_s=Cost.of(servers).cpu_s - server.cpu_s,
                agent_peak_mib=agent_after.peak_mib,
                requests=self._requests() - requested,
                load=os.getloadavg()[0],
            )
        )

    def _requests(self) -> float:
        return sum(_requests_of(agent.extra["TIDELOG_LISTEN"]) for agent in self.agents.all)

    def inside_s(self, op_id: str) -> float:
        """Seconds from the request of an operation to its end, by the server's clock."""
        begun, ended = self.span(op_id)
        return ended - begun

    def span(self, op_id: str) -> tuple[float, float]:
        """When an operation was requested and when it ended, by the server's clock, in seconds
        since 1970."""
        found = self.client.admin.tidelogOperations.find_one({"_id": op_id})
        begun, ended = (found[name].replace(tzinfo=UTC) for name in ("requested_at", "finished_at"))
        return begun.timestamp(), ended.timestamp()

    def empty_repository(self) -> None:
        """Delete every backup, as its user would."""
        for backup in self.ask("list")["snapshots"]:
            self.ask("delete-backup", backup["name"], "-y", "--wait")

    def stored(self) -> tuple[int, int]:
        """Bytes and number of the repository's objects."""
        sizes = [path.stat().st_size for path in self.repository.rglob("*") if path.is_file()]
        return sum(sizes), len(sizes)

    def settle(self) -> None:
        """Everything so far is on disk and no longer costs anything."""
        self.client.admin.command("fsync")
        time.sleep(1.0)

    def enable_pitr(self) -> None:
        """Slice from now on."""
        self.ask("config", "--set", "pitr.enabled=true")
        runs = self.client.admin.tidelogSlices
        eventually(lambda: runs.count_documents({"kind": "run"}) > 0, 60.0)

    def wait_covered(self) -> tuple[int, int]:
        """Wait until everything written so far is archived; answers its OpTime."""
        last = self.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]

        def covered() -> bool:
            for run in self.client.admin.tidelogSlices.find({"kind": "run"}):
                until = run["covered_until"], run["end"]
                if max((one["T"], one["I"]) for one in until) >= (last.time, last.inc):
                    return True
            return False

        eventually(covered, LONG_S, every_s=0.5)
        return last.time, last.inc


def _requests_of(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10.0) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "tidelog_storage_requests_total"
    )
