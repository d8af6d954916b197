"""What slicing costs and how far behind it is, at default settings, on three nodes.

    .venv/bin/python -m bench.slicing [minutes]

Idle first, then writes of about 300 bytes at each rate, each for a share of the minutes (10). Of
each stretch: the RPO (the time now less the last moment that can be restored to) by its median,
99th percentile and maximum, and CPU and memory of the agent that slices and of the others.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from agent.wire.leases import slicer_scope
from bench.rig import Rig
from tests.support.agents import AgentProcess

RATES: Final = (0, 500, 2_000)
"""Writes a second."""
_BATCH: Final = 50
_LOOK_EVERY_S: Final = 0.2
_SETTLE_S: Final = 20.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print a line for each rate."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with Rig(3, cache_gb=1.0) as rig:
        rig.client.bench.few.insert_many({"_id": i} for i in range(100))
        rig.enable_pitr()
        rig.ask("backup", "--wait")
        for rate in RATES:
            with writing(rig, rate) as written:
                time.sleep(_SETTLE_S)
                _say(_stretch(rig, rate, minutes * 60 / len(RATES) - _SETTLE_S, written))
    return 0


def _stretch(rig: Rig, rate: int, seconds: float, written: list[int]) -> str:
    slicing = slicer(rig)
    others = [agent for agent in rig.agents.all if agent is not slicing]
    lags: list[float] = []
    begun, before = time.monotonic(), written[0]
    used = {agent.id: _cpu_s(agent) for agent in rig.agents.all}
    while time.monotonic() < begun + seconds:
        lags.append(time.time() - covered_until_s(rig))
        time.sleep(_LOOK_EVERY_S)
    taken_s = time.monotonic() - begun
    share = {agent.id: (_cpu_s(agent) - used[agent.id]) / taken_s for agent in rig.agents.all}
    lags.sort()
    others_share = statistics.mean(share[agent.id] for agent in others)
    others_mib = max(map(_rss_mib, others))
    return (
        f"{(written[0] - before) / taken_s:.0f} writes/s for {taken_s:.0f} s (wanted {rate}): "
        f"RPO median {statistics.median(lags):.1f} s, p99 {lags[int(len(lags) * 0.99)]:.1f} s, "
        f"most {lags[-1]:.1f} s; slicing agent {share[slicing.id]:.1%} CPU, "
        f"{_rss_mib(slicing):.0f} MiB; each other {others_share:.1%} CPU, {others_mib:.0f} MiB; "
        f"load {os.getloadavg()[0]:.1f}"
    )


@contextmanager
def writing(rig: Rig, rate: int) -> Iterator[list[int]]:
    """Insert at this rate meanwhile; counts."""
    stopping = threading.Event()
    written = [0]

    def write() -> None:
        due = time.monotonic()
        while rate and not stopping.is_set():
            rig.client.bench.written.insert_many(
                [{"n": n, "pad": "x" * 260} for n in range(_BATCH)], ordered=False
            )
            written[0] += _BATCH
            due += _BATCH / rate
            stopping.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield written
    finally:
        stopping.set()
        thread.join(30)


def covered_until_s(rig: Rig) -> float:
    """The last moment that is archived, in seconds since 1970."""
    (run,) = rig.client.admin.tidelogSlices.find({"kind": "run"})
    return float(max(run["end"]["T"], run["covered_until"]["T"]))


def slicer(rig: Rig) -> AgentProcess:
    """Who slices."""
    scope = slicer_scope(rig.replset.name)
    lease: dict[str, Any] = rig.client.admin.tidelogLeases.find_one({"_id": scope})
    return rig.agents.of(str(lease["owner"]))


def _cpu_s(agent: AgentProcess) -> float:
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rss_mib(agent: AgentProcess) -> float:
    return int(Path(f"/proc/{agent.pid}/statm").read_text().split()[1]) * 4096 / (1 << 20)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
