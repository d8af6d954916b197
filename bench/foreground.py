"""What clients feel: latencies of a steady workload alone, while slicing runs, during backups from
a secondary.

*Hosts apart* models the host of the node that is backed up on one core: that node, its agent and
`ctl`. The other core has what is on other hosts: the primary, the other secondary, their agents
and the client. So the work of the backup takes no core from what a write waits for, the primary
and the secondary that nobody reads from; that these two hosts are one here is so in all states,
also in the one that the others are compared with. Both secondaries copy from the primary, and
objects go to memory, since a storage is not the disk that a secondary journals to.

*Chained* is the same, but the other secondary copies from the node that is backed up.

The limits of the model: one disk, one memory, caches, and what lies below two virtual cores. What
this adds is measured too: *another program* compresses blocks in place of the backup and has
nothing to do with the database. A backup cannot do better here; on hosts of their own this part is
not there.

*All on the same cores* is everything on all of them as the scheduler likes: three mongods, three
agents, the storage and the client on one host. It is the worst case, and what a small deployment
feels in which mongod and agent share their cores.

A backup is counted from its request to its end, by the server's clock. It lasts seconds here, so
its beginning and its end, when agents agree by reading and writing on the primary, are a great part
of it; of one that lasts an hour they are none. So both are told apart.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import zstandard
from pymongo import MongoClient

from bench import datasets
from bench.rig import LONG_S, Rig
from bench.scenarios import Row, over
from tests.support.eventually import eventually

SPELL_S: Final = 6.0
"""How long each state is measured at a time."""
DATA_SCALE: Final = 0.4
"""At any scale: a backup has to last longer than a client takes to start."""
SPELLS: Final = 3
"""Of each state, in turns: what else the machine does hits all of them."""
CHAINED_SPELLS: Final = 2
BACKUPS: Final = 2
"""In each spell."""
AGREEING_S: Final = 0.4
"""From the request until documents are read, and from the last of them to the end: at most."""
PAUSE_S: Final = 0.005
"""Between the beginnings of two writes of the client."""
WARM_UP: Final = 200
"""Writes that are not counted."""
READY_WITHIN_S: Final = 30.0
COPIED_WITHIN_S: Final = 60.0
STATES: Final = (
    "nothing",
    "another program",
    "slicing",
    "a backup",
    "a backup, its beginning and its end",
    "a backup, while it reads",
)
MEMORY: Final = Path("/dev/shm")

Write = tuple[float, float]
"""When it was begun, in seconds since 1970, and the milliseconds until it was acknowledged."""


def foreground(_scale: float, rounds: int) -> list[Row]:
    """All placements."""
    spells = max(SPELLS, rounds)
    with Rig(3, cache_gb=1.0) as rig, _stored_in_memory(rig):
        datasets.load_a(rig.client, DATA_SCALE)
        rig.settle()
        cores = sorted(os.sched_getaffinity(0))
        theirs, its = set(cores[: len(cores) // 2 or 1]), set(cores[len(cores) // 2 :])
        chosen = _choose(rig)
        _copy_from(rig, {})
        try:
            _apart(rig, chosen, theirs, its)
            rows = _measured(rig, theirs, "hosts apart", spells, others=its)
            _copy_from(rig, {_other_secondary(rig, chosen): chosen})
            rows += _measured(rig, theirs, "hosts apart, chained", CHAINED_SPELLS, slicing=False)
            _copy_from(rig, {})
        finally:
            _together(rig, set(cores))
        return rows + _measured(rig, set(cores), "all on the same cores", spells)


@contextmanager
def _stored_in_memory(rig: Rig) -> Iterator[None]:
    directory = Path(tempfile.mkdtemp(prefix="tidelog-bench-", dir=MEMORY))
    try:
        rig.ctl.configure_filesystem(directory)
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _choose(rig: Rig) -> str:
    """Have one secondary do all the work; answers its `host:port`."""
    host = rig.replset.secondaries()[0].host
    for kind in ("backup", "pitr"):
        rig.ask("config", "--set", f"{kind}.priority.{host}=2")
    return host


def _other_secondary(rig: Rig, chosen: str) -> str:
    return next(node.host for node in rig.replset.secondaries() if node.host != chosen)


def _copy_from(rig: Rig, sources: dict[str, str]) -> None:
    """Have each secondary copy the oplog from that node, from the primary where none is given."""
    config = rig.client.admin.command("replSetGetConfig")["config"]
    config["settings"]["chainingAllowed"] = bool(sources)
    rig.client.admin.command("replSetReconfig", config | {"version": config["version"] + 1})
    primary = rig.replset.primary().host
    wanted = {node.host: primary for node in rig.replset.secondaries()} | sources
    for host, source in sources.items():
        with MongoClient[dict[str, Any]](host, directConnection=True) as client:
            client.admin.command("replSetSyncFrom", source)

    def is_so() -> bool:
        members = rig.client.admin.command("replSetGetStatus")["members"]
        return wanted.items() <= {one["name"]: one["syncSourceHost"] for one in members}.items()

    eventually(is_so, COPIED_WITHIN_S, every_s=0.5)


def _apart(rig: Rig, chosen: str, theirs: set[int], its: set[int]) -> None:
    for pid, host in _pids(rig):
        _place(pid, its if host == chosen else theirs)
    _place(os.getpid(), its)


def _together(rig: Rig, cores: set[int]) -> None:
    for pid, _ in _pids(rig):
        _place(pid, cores)
    _place(os.getpid(), cores)


def _pids(rig: Rig) -> list[tuple[int, str]]:
    nodes = [(node.pid, node.host) for node in rig.replset.nodes]
    return nodes + [(agent.pid, agent.node.host) for agent in rig.agents.all]


def _place(pid: int, cores: set[int]) -> None:
    """Put a process's threads there, and what they start from now on."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def _measured(
    rig: Rig,
    cores: set[int],
    placement: str,
    spells: int,
    *,
    others: set[int] | None = None,
    slicing: bool = True,
) -> list[Row]:
    found = defaultdict[str, list[float]](list)
    inside_s = list[float]()

    def rest() -> None:
        time.sleep(SPELL_S)

    for _ in range(spells):
        found["nothing"] += _took(_writes(cores, rig, rest))
        if others is not None:
            with _another_program(others):
                found["another program"] += _took(_writes(cores, rig, rest))
        op_ids = list[str]()
        writes = _writes(cores, rig, partial(_back_up, rig, op_ids))
        for begun, ended in map(rig.span, op_ids):
            inside_s.append(ended - begun)
            reading = begun + AGREEING_S, ended - AGREEING_S
            found["a backup"] += _took(writes, begun, ended)
            found["a backup, while it reads"] += _took(writes, *reading)
            found["a backup, its beginning and its end"] += _took(writes, begun, reading[0])
            found["a backup, its beginning and its end"] += _took(writes, reading[1], ended)
        if slicing:
            rig.enable_pitr()
            found["slicing"] += _took(_writes(cores, rig, rest))
            rig.ask("config", "--set", "pitr.enabled=false")
            time.sleep(3.0)
    p99 = {what: _p99(took) for what, took in found.items()}
    rows: list[Row] = []
    for what in STATES:
        if what not in found:
            continue
        row: Row = {
            "placement": placement,
            "what runs": what,
            "median ms": median(found[what]),
            "p99 ms": p99[what],
            "ratio": over(p99[what], p99["nothing"]),
            "writes": len(found[what]),
        }
        if what == "a backup":
            row["backup s"] = median(inside_s)
        if "another program" in p99 and what.startswith("a backup"):
            row["ratio to another program"] = over(p99[what], p99["another program"])
        rows.append(row)
    return rows


def _took(writes: list[Write], begun: float = 0.0, ended: float = math.inf) -> list[float]:
    """Milliseconds of those that were under way at any time between the two."""
    return [ms for at, ms in writes if at + ms / 1000 > begun and at < ended]


def _back_up(rig: Rig, op_ids: list[str]) -> None:
    for _ in range(BACKUPS):
        op_ids.append(rig.ask("backup")["op_id"])
        _wait_done(rig, op_ids[-1])


def _wait_done(rig: Rig, op_id: str) -> None:
    operations = rig.client.admin.tidelogOperations
    wanted = {"finished_at": 1, "state": 1, "error": 1}
    end = time.monotonic() + LONG_S
    while (found := operations.find_one({"_id": op_id}, wanted)).get("finished_at") is None:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    assert found["state"] == "done", found


@contextmanager
def _another_program(cores: set[int]) -> Iterator[None]:
    program = multiprocessing.get_context("spawn").Process(target=_compress, args=(cores,))
    program.start()
    try:
        time.sleep(1.0)
        yield
    finally:
        program.kill()
        program.join()


def _compress(cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    block = os.urandom(4 << 20) * 2
    while True:
        zstandard.ZstdCompressor(level=1).compress(block)


def _p99(took: list[float]) -> float:
    return quantiles(took, n=100)[98]


def _writes(cores: set[int], rig: Rig, meanwhile: Callable[[], Any]) -> list[Write]:
    """200 updates a second, each waiting for the majority, while something else
    happens. The client is a process of its own: it must not wait for what this one does."""
    fresh = multiprocessing.get_context("spawn")
    begun, ended, found = fresh.Event(), fresh.Event(), fresh.SimpleQueue()
    client = fresh.Process(target=_write, args=(rig.replset.uri(), cores, begun, ended, found))
    client.start()
    try:
        begun.wait(READY_WITHIN_S)
        meanwhile()
        ended.set()
        while found.empty():
            assert client.is_alive() or not found.empty(), "the client died; see what it said above"
            time.sleep(0.05)
        taken: list[Write] = found.get()
    finally:
        ended.set()
        client.join(READY_WITHIN_S)
    return taken


def _write(uri: str, cores: set[int], begun: Event, ended: Event, found: Any) -> None:
    # Of this thread, and of those that the client starts.
    os.sched_setaffinity(0, cores)
    taken: list[Write] = []
    with MongoClient[dict[str, Any]](uri) as client:
        rows = client.foreground.rows
        number = 0
        while not ended.is_set():
            at, before = time.time(), time.monotonic()
            rows.update_one({"_id": number % 1000}, {"$inc": {"n": 1}}, upsert=True)
            took_s = time.monotonic() - before
            number += 1
            if number == WARM_UP:
                begun.set()
            elif number > WARM_UP:
                taken.append((at, took_s * 1000))
            ended.wait(max(0.0, PAUSE_S - took_s))
    found.put(taken)
