"""What clients feel: latencies of a steady workload alone, while slicing runs, during backups from
a secondary.

*Hosts apart* models a host for each of three nodes on two cores. The primary, its agent and its
client have the first core. The other two nodes share the second: the one that does not work
belongs to a host that the work does not touch, so it and its agent go first, always; the one that
is backed up (and slices), its agent and `ctl` get what is left (`SCHED_IDLE`: a thread of the
others that wakes takes the core at once). The majority that a write waits for is then what it is
in production: the primary and the secondary nobody reads from. Objects go to memory, since a
storage is not the disk that a secondary journals to.

Its limits: the hosts still share one disk, caches, memory and what lies below two virtual cores,
the client shares the core of the primary, and the node that is backed up has less than a core, so
that the backup takes longer and more of it is measured, not less. What the machine itself adds is
measured too: *another program* compresses blocks in place of the backup, in the same rest of the
second core, and has nothing to do with the database. A backup cannot do better here; on hosts of
their own this part is not there.

*All on the same cores* is everything on all of them as the scheduler likes: three mongods, three
agents, the storage and the client on one host. It is the worst case, and what a small deployment
feels in which mongod and agent share their cores.
"""

from __future__ import annotations

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
from bench.rig import Rig
from bench.scenarios import Row, over

SPELL_S: Final = 8.0
"""How long each state is measured at a time."""
DATA_SCALE: Final = 0.4
"""At any scale: a backup has to last longer than a client takes to start."""
SPELLS: Final = 3
"""Of each state, in turns: what else the machine does hits all of them."""
PAUSE_S: Final = 0.005
"""Between the beginnings of two writes of the client."""
WARM_UP: Final = 200
"""Writes that are not counted."""
READY_WITHIN_S: Final = 30.0
MEMORY: Final = Path("/dev/shm")

Latencies = list[float]


def foreground(_scale: float, rounds: int) -> list[Row]:
    """Both placements."""
    with Rig(3, cache_gb=1.0) as rig, _stored_in_memory(rig):
        datasets.load_a(rig.client, DATA_SCALE)
        rig.settle()
        cores = sorted(os.sched_getaffinity(0))
        mine, theirs = set(cores[: len(cores) // 2 or 1]), set(cores[len(cores) // 2 :])
        chosen = _choose(rig)
        try:
            _apart(rig, chosen, mine, theirs)
            rows = _measured(rig, mine, "hosts apart", max(SPELLS, rounds), others=theirs)
        finally:
            _together(rig, set(cores))
        return rows + _measured(rig, set(cores), "all on the same cores", max(SPELLS, rounds))


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


def _apart(rig: Rig, chosen: str, mine: set[int], theirs: set[int]) -> None:
    primary = rig.replset.primary().host
    for pid, host in _pids(rig):
        _place(pid, mine if host == primary else theirs, is_idle=host == chosen)
    _place(os.getpid(), theirs, is_idle=True)


def _together(rig: Rig, cores: set[int]) -> None:
    for pid, _ in _pids(rig):
        _place(pid, cores, is_idle=False)
    _place(os.getpid(), cores, is_idle=False)


def _pids(rig: Rig) -> list[tuple[int, str]]:
    nodes = [(node.pid, node.host) for node in rig.replset.nodes]
    return nodes + [(agent.pid, agent.node.host) for agent in rig.agents.all]


def _place(pid: int, cores: set[int], *, is_idle: bool) -> None:
    """Put a process's threads there, and what they start from now on."""
    policy = os.SCHED_IDLE if is_idle else os.SCHED_OTHER
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)
            os.sched_setscheduler(int(task.name), policy, os.sched_param(0))


def _measured(
    rig: Rig, cores: set[int], placement: str, spells: int, *, others: set[int] | None = None
) -> list[Row]:
    found = defaultdict[str, list[Latencies]](list)
    inside_s = list[float]()

    def rest() -> None:
        time.sleep(SPELL_S)

    for _ in range(spells):
        found["nothing"].append(_latencies(cores, rig, rest))
        if others is not None:
            with _another_program(others):
                found["another program"].append(_latencies(cores, rig, rest))
        # Requested before the clients begin: the start of `ctl` is no part of a backup.
        op_id = rig.ask("backup")["op_id"]
        found["a backup"].append(_latencies(cores, rig, partial(_wait_done, rig, op_id)))
        inside_s.append(rig.inside_s(op_id))
        rig.enable_pitr()
        found["slicing"].append(_latencies(cores, rig, rest))
        rig.ask("config", "--set", "pitr.enabled=false")
        time.sleep(3.0)
    p99 = {what: median(map(_p99, spells_of_it)) for what, spells_of_it in found.items()}
    rows: list[Row] = [
        {
            "placement": placement,
            "what runs": what,
            "median ms": median(map(median, found[what])),
            "p99 ms": p99[what],
            "ratio": over(p99[what], p99["nothing"]),
        }
        for what in ("nothing", "another program", "slicing", "a backup")
        if what in found
    ]
    rows[-1]["backup s"] = median(inside_s)
    if "another program" in p99:
        rows[-1]["ratio to another program"] = over(p99["a backup"], p99["another program"])
    return rows


def _wait_done(rig: Rig, op_id: str) -> None:
    operations = rig.client.admin.tidelogOperations
    while operations.find_one({"_id": op_id}, {"finished_at": 1}).get("finished_at") is None:
        time.sleep(0.1)


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
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(0, cores)
    block = os.urandom(4 << 20) * 2
    while True:
        zstandard.ZstdCompressor(level=1).compress(block)


def _p99(taken: Latencies) -> float:
    return quantiles(taken, n=100)[98]


def _latencies(cores: set[int], rig: Rig, meanwhile: Callable[[], Any]) -> Latencies:
    """Milliseconds of 200 updates a second, each waiting for the majority, while something else
    happens. The client is a process of its own: it must not wait for what this one does."""
    fresh = multiprocessing.get_context("spawn")
    begun, ended, found = fresh.Event(), fresh.Event(), fresh.SimpleQueue()
    client = fresh.Process(target=_write, args=(rig.replset.uri(), cores, begun, ended, found))
    client.start()
    try:
        begun.wait(READY_WITHIN_S)
        meanwhile()
        ended.set()
        taken: Latencies = found.get()
    finally:
        ended.set()
        client.join(READY_WITHIN_S)
    return taken


def _write(uri: str, cores: set[int], begun: Event, ended: Event, found: Any) -> None:
    # Of this thread, and of those that the client starts.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, cores)
    taken: Latencies = []
    with MongoClient[dict[str, Any]](uri) as client:
        rows = client.foreground.rows
        number = 0
        while not ended.is_set():
            before = time.monotonic()
            rows.update_one({"_id": number % 1000}, {"$inc": {"n": 1}}, upsert=True)
            took_s = time.monotonic() - before
            number += 1
            if number == WARM_UP:
                begun.set()
            elif number > WARM_UP:
                taken.append(took_s * 1000)
            ended.wait(max(0.0, PAUSE_S - took_s))
    found.put(taken)
