"""What an agent takes while it works: memory, descriptors, threads and connections are bounded.

Documents of 16 MiB, many collections, a transaction of very many operations: each is backed up,
archived, verified and restored, and the greatest resident memory of the agent during each of these
is read from the system. TIDELOG_MEMORY (1) multiplies the sizes: with 40 there are 100,000
collections and a transaction of a million operations.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pymongo import WriteConcern

from tests.cluster.scene import Scene, note
from tests.support.agents import AgentProcess, Agents
from tests.support.crashes import IN_FULL
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet, SetOptions

pytestmark = [pytest.mark.timeout(3600), IN_FULL]

SCALE = float(os.environ.get("TIDELOG_MEMORY") or 1)
RSS_MIB = 400
DESCRIPTORS = 100
THREADS = 80
CONNECTIONS = 40
LARGE = 24
COLLECTIONS = int(2_500 * SCALE)
OPERATIONS = int(25_000 * SCALE)
LONG_S = 240.0 * max(1.0, SCALE)
_FEW_FILES = "file_manager=(close_idle_time=2,close_scan_interval=1,close_handle_minimum=100)"


@dataclass
class Watch:
    """The greatest that was seen of one process, looked at all the time."""

    agent: AgentProcess
    replset: ReplicaSet
    descriptors: int = 0
    threads: int = 0
    connections: int = 0
    peaks_mib: dict[str, int] = field(default_factory=dict)
    """Of resident memory, by what the agent was asked for."""
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10.0)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """The peak of resident memory from here to the end, and how long that took."""
        process, began = Path(f"/proc/{self.agent.pid}"), time.monotonic()
        (process / "clear_refs").write_text("5")  # proc(5): the peak begins anew
        yield
        status = (process / "status").read_text()
        (line,) = [one for one in status.splitlines() if one.startswith("VmHWM")]
        self.peaks_mib[what] = int(line.split()[1]) // 1024
        note(f"{what}: {self.peaks_mib[what]} MiB, {time.monotonic() - began:.0f} s")

    def _look(self) -> None:
        process = Path(f"/proc/{self.agent.pid}")
        while not self._over.wait(0.2):
            self.descriptors = max(self.descriptors, len(list((process / "fd").iterdir())))
            self.threads = max(self.threads, len(list((process / "task").iterdir())))
            found = self.replset.client().admin.command("serverStatus")["connections"]
            self.connections = max(self.connections, int(found["current"]))


@pytest.fixture
def scene(mongod: Path, tmp_path: Path) -> Iterator[Scene]:
    """A node of its own, whose connections are the agent's and ours; the agent is a process of
    its own, so that what `/proc` says is of it alone."""
    options = SetOptions(
        name="memory",
        oplog_mb=990,
        cache_gb=4.0,
        parameters={"transactionLifetimeLimitSeconds": 900},
        # 200,000 files, and few of them open: a process may have 20,000 descriptors.
        arguments=("--wiredTigerEngineConfigString", _FEW_FILES, "--syncdelay", "20"),
    )
    with ReplicaSet(options) as replset, Agents(replset, is_warm=False) as agents:
        found = Scene(replset, agents, Ctl(replset.uri()), tmp_path / "repository")
        found.open()
        yield found


def large_documents(scene: Scene) -> None:
    """Just below what a server takes, and such that nothing compresses."""
    room = 16 * 1024 * 1024 - 200
    for number in range(LARGE):
        scene.client.shop.large.insert_one({"_id": number, "pad": os.urandom(room)})


def many_collections(scene: Scene) -> None:
    """In ten databases."""
    for number in range(COLLECTIONS):
        database = scene.client.get_database(
            f"many{number % 10}", write_concern=WriteConcern(1, j=False)
        )
        database[f"c{number}"].insert_one({"_id": 1, "n": number})


def large_transaction(scene: Scene) -> None:
    """One, of many entries of the oplog."""
    rows = scene.client.shop.rows
    rows.insert_one({"_id": -1})
    with scene.client.start_session() as session, session.start_transaction():
        for begin in range(0, OPERATIONS, 50_000):
            end = min(OPERATIONS, begin + 50_000)
            rows.insert_many(
                ({"_id": n, "n": n % 7} for n in range(begin, end)), session=session, ordered=True
            )


@pytest.mark.parametrize("fill", [large_documents, many_collections, large_transaction])
def test_what_an_agent_takes_is_bounded(scene: Scene, fill: Callable[[Scene], None]) -> None:
    (agent,) = scene.agents.all
    scene.client.shop.first.insert_one({})
    scene.ctl.ok("backup", "--wait", within_s=LONG_S)
    scene.enable_pitr(2.0)
    with Watch(agent, scene.replset) as watch:
        with watch.during("slicing"):
            fill(scene)
            last = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
            scene.wait_covered((last.time, last.inc), LONG_S)
        counted = _counted(scene)
        replayed_to = scene.covered()
        first = scene.ctl.ok("list")["snapshots"][0]["name"]
        with watch.during("backup"):
            name = scene.ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
        with watch.during("verify"):
            scene.ctl.ok("verify", "--deep", "--wait", within_s=LONG_S)
        with watch.during("restore"):
            scene.ctl.ok("restore", name, "-y", "--wait", within_s=LONG_S)
        assert _counted(scene) == counted
        wanted = ("--time", f"{replayed_to[0]},{replayed_to[1]}", "--base-snapshot", first)
        with watch.during("restore to a moment"):
            scene.ctl.ok("restore", *wanted, "-y", "--wait", within_s=LONG_S)
        assert _counted(scene) == counted
    note(
        f"{fill.__name__}: {watch.peaks_mib} MiB, {watch.descriptors} descriptors, "
        f"{watch.threads} threads, {watch.connections} connections to the node"
    )
    assert max(watch.peaks_mib.values()) <= RSS_MIB, watch.peaks_mib
    assert watch.descriptors <= DESCRIPTORS
    assert watch.threads <= THREADS
    assert watch.connections <= CONNECTIONS


def _counted(scene: Scene) -> tuple[int, int]:
    """Collections and documents."""
    names = [name for name in scene.client.list_database_names() if name[:4] in ("shop", "many")]
    found = [
        scene.client[name][one]
        for name in names
        for one in scene.client[name].list_collection_names()
    ]
    return len(found), sum(one.estimated_document_count() for one in found)
