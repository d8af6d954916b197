"""What clients feel: p99 of a steady workload alone, while slicing runs, during backups from a
secondary.

Once as hosts of their own would have it: the primary and its client on one half of the cores, the
secondaries and every agent on the other. Once with everything on all cores, which is the worst case
and no deployment that anybody should have.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from bench import datasets
from bench.rig import Rig
from bench.scenarios import Row, over

QUIET_S: Final = 12.0
PAUSE_S: Final = 0.005
"""Between the beginnings of two writes of the client."""
BACKUPS: Final = 3

Latencies = tuple[float, float]
"""Median and 99th percentile, in milliseconds."""


def foreground(scale: float, rounds: int) -> list[Row]:
    """Both placements."""
    with Rig(3, cache_gb=1.0) as rig:
        datasets.load_a(rig.client, scale / 4)
        rig.settle()
        cores = sorted(os.sched_getaffinity(0))
        mine, theirs = set(cores[: len(cores) // 2 or 1]), set(cores[len(cores) // 2 :])
        _place(rig, mine, theirs)
        try:
            rows = _measured(rig, mine, "hosts apart")
        finally:
            _place(rig, set(cores), set(cores))
        return rows + _measured(rig, set(cores), "all on the same cores")


def _place(rig: Rig, primary: set[int], others: set[int]) -> None:
    """Which cores each process may use, and `ctl`, which is started from this thread."""
    first = rig.replset.primary()
    _pin([first.pid], primary)
    _pin([node.pid for node in rig.replset.nodes if node is not first], others)
    _pin([agent.pid for agent in rig.agents.all], others)
    os.sched_setaffinity(0, others)


def _pin(pids: Iterable[int], cores: set[int]) -> None:
    for task in chain.from_iterable(Path(f"/proc/{pid}/task").iterdir() for pid in pids):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores)


def _measured(rig: Rig, cores: set[int], placement: str) -> list[Row]:
    def wait() -> None:
        time.sleep(QUIET_S)

    def back_up() -> None:
        for _ in range(BACKUPS):
            rig.ask("backup", "--wait")

    alone = _latencies(rig, cores, wait)
    rig.enable_pitr()
    slicing = _latencies(rig, cores, wait)
    rig.ask("config", "--set", "pitr.enabled=false")
    time.sleep(3.0)
    during = _latencies(rig, cores, back_up)
    again = _latencies(rig, cores, wait)
    base = median([alone[1], again[1]])
    found = {"nothing": (median([alone[0], again[0]]), base), "slicing": slicing, "backups": during}
    return [
        {
            "placement": placement,
            "what runs": what,
            "median ms": middle,
            "p99 ms": high,
            "ratio": over(high, base),
        }
        for what, (middle, high) in found.items()
    ]


def _latencies(rig: Rig, cores: set[int], meanwhile: Callable[[], Any]) -> Latencies:
    """Of 200 updates a second, each waiting for the majority, while something else happens."""
    taken: list[float] = []
    ended = threading.Event()

    def work() -> None:
        os.sched_setaffinity(0, cores)  # of this thread, and of those that the client starts
        collection = rig.replset.connect(rig.replset.uri()).foreground.rows
        number = 0
        while not ended.is_set():
            begun = time.monotonic()
            collection.update_one({"_id": number % 1000}, {"$inc": {"n": 1}}, upsert=True)
            taken.append(time.monotonic() - begun)
            number += 1
            ended.wait(max(0.0, PAUSE_S - taken[-1]))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        meanwhile()
    finally:
        ended.set()
        thread.join()
    return median(taken) * 1000, quantiles(taken, n=100)[98] * 1000
