"""`make soak`: rounds of seeded histories under faults, each proven by restores, for MINUTES.

SEED is where it begins; each round takes the next one. TARGETS (2) moments of each history are
restored beside those at which it held still; OUTAGE_S (20) is how long storage goes away. With
SHARDS it is a sharded cluster of so many shards (see `tests.soak.sharded`). Prints a line a round
and the sum at the end; the exit status is 1 if anything was not restored exactly.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from tests.cluster.rounds import Counts, forget, prove_round
from tests.cluster.scene import Scene
from tests.soak.sharded import soak
from tests.support.agents import Agents
from tests.support.chaos import ALL_FAULTS
from tests.support.cleaning import clean
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet, SetOptions
from tests.support.mongod.options import Member
from tests.support.reaper import REAPER


def main() -> int:
    """Run rounds until the time is over."""
    minutes = float(os.environ.get("MINUTES") or 30)
    first = int(os.environ.get("SEED") or random.randrange(2**31))
    shards = int(os.environ.get("SHARDS") or 0)
    if shards:
        _say(f"soak of {shards} shards: {minutes:g} minutes, beginning with seed {first}")
        return soak(minutes, first, shards, _say)
    counts = Counts()
    end = time.monotonic() + minutes * 60
    _say(f"soak: {minutes:g} minutes, beginning with seed {first}")
    with ReplicaSet(SetOptions(name="soak", members=(Member(),) * 3, oplog_mb=990)) as replset:
        for seed in range(first, first + 100_000):
            if time.monotonic() > end:
                break
            before = len(counts.failures)
            _round(replset, seed, counts)
            _say(f"seed {seed}: {counts}")
            for failure in counts.failures[before:]:
                _say(f"  {failure}")
    _say(f"soak ended: {counts}")
    return 1 if counts.failures else 0


def _round(replset: ReplicaSet, seed: int, counts: Counts) -> None:
    """Every other round without faults, and then with prepared and large transactions."""
    repository = REAPER.make_directory("tidelog-soak-") / "repository"
    try:
        clean(replset.client())
        with Agents(replset) as agents:
            scene = Scene(replset, agents, Ctl(replset.uri()), Path(repository))
            scene.open()
            scene.enable_pitr(2.0, "pitr.autoBase=true")
            faults = dict(ALL_FAULTS) if seed % 2 else None
            prove_round(
                scene,
                seed,
                counts,
                write_s=20.0,
                moments=4,
                faults=faults,
                targets=int(os.environ.get("TARGETS") or 2),
                storage_gone_s=float(os.environ.get("OUTAGE_S") or 20),
            )
            forget(scene)
    except AssertionError as error:
        counts.failures.append(f"seed {seed}: {error}")
    finally:
        REAPER.remove_directory(repository.parent)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
