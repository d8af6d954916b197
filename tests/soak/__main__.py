"""`make soak`: rounds of seeded histories under faults, each proven by restores, for MINUTES.

SEED is where it begins; each round takes the next one. TARGETS (2) moments of each history are
restored beside those at which it held still; OUTAGE_S (20) is how long storage goes away; FAULTS
names those to inject (all of them, in every other round). Links are cut too where this process may
make a network of its own, which it then does first. STORAGE=s3 keeps the repository on a real S3
server, of which a tenth of all requests fails, and takes backups under faults (no links are cut
then). With SHARDS it is a sharded cluster of so many shards (see `tests.soak.sharded`). Prints a
line a round and the sum at the end; the exit status is 1 if anything was not restored exactly, or
left behind (a lease, an operation, a collection, an object, an upload).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

from tests.cluster.rounds import Counts, forget, prove_round
from tests.cluster.scene import Scene
from tests.soak.sharded import soak
from tests.support.agents import Agents
from tests.support.chaos import ALL_FAULTS, NETWORK_FAULTS
from tests.support.cleaning import clean
from tests.support.ctl import Ctl
from tests.support.leftovers import check_nothing_left
from tests.support.mongod import HERE, Machine, ReplicaSet, SetOptions
from tests.support.mongod.options import Member
from tests.support.network import Network, entering, environment_inside, hindrance, is_inside
from tests.support.reaper import REAPER
from tests.support.s3_repository import S3Repository
from tests.support.servers.background import Background

NODES = 3
_FAILING = 0.1
"""The share of requests to S3 that fails all the time."""


def main() -> int:
    """Run rounds until the time is over."""
    minutes = float(os.environ.get("MINUTES") or 30)
    first = int(os.environ.get("SEED") or random.randrange(2**31))
    shards = int(os.environ.get("SHARDS") or 0)
    if not _on_s3() and not is_inside() and entering():
        command = [*entering(), sys.executable, "-m", "tests.soak"]
        os.execvpe(command[0], command, environment_inside())
    counts = Counts()
    end = time.monotonic() + minutes * 60
    what = f"soak of {shards} shards" if shards else "soak"
    _say(f"{what}: {minutes:g} minutes, beginning with seed {first}")
    with ExitStack() as stack:
        network = stack.enter_context(Network()) if is_inside() else None
        if network is None:
            _say(f"no links are cut: {hindrance()}")
        if shards:
            return soak(minutes, first, shards, _say, network)
        machine = network.machine if network else lambda: HERE
        nodes = SetOptions(name="soak", members=(Member(),) * NODES, oplog_mb=990, machine=machine)
        replset = stack.enter_context(ReplicaSet(nodes))
        # The agents of each round, on the machines of those before them.
        beside = cycle([machine() for _ in range(NODES)]).__next__
        for seed in range(first, first + 100_000):
            if seed > first and time.monotonic() > end:
                break
            before = len(counts.failures)
            _round(replset, seed, counts, network, beside)
            _say(f"seed {seed}: {counts}")
            for failure in counts.failures[before:]:
                _say(f"  {failure}")
    _say(f"soak ended: {counts}")
    return 1 if counts.failures else 0


def _round(
    replset: ReplicaSet,
    seed: int,
    counts: Counts,
    network: Network | None,
    machine: Callable[[], Machine],
) -> None:
    """Every other round without faults, and then with prepared and large transactions."""
    repository = REAPER.make_directory("tidelog-soak-") / "repository"
    try:
        clean(replset.client())
        with ExitStack() as stack:
            agents = stack.enter_context(Agents(replset, machine=machine))
            scene = Scene(replset, agents, Ctl(replset.uri()), Path(repository))
            s3 = None
            if _on_s3():
                background = stack.enter_context(Background())
                s3 = S3Repository(background, repository.with_name("secrets"))
                s3.configure(scene.ctl)
                s3.storm(_FAILING)
                scene.fill(25, seed)
            else:
                scene.open()
            scene.enable_pitr(2.0, "pitr.autoBase=true")
            prove_round(
                scene,
                seed,
                counts,
                write_s=20.0,
                moments=4,
                faults=_faults(network) if seed % 2 else None,
                targets=int(os.environ.get("TARGETS") or 2),
                storage_gone_s=float(os.environ.get("OUTAGE_S") or 20),
                network=network,
                storage_away=None if s3 is None else lambda: s3.away(_FAILING),
                backs_up=s3 is not None and seed % 2 == 1,
            )
            check_nothing_left(
                scene.client.admin, [scene.client], scene.ctl, scene.repository, s3=s3
            )
            forget(scene)
    except AssertionError as error:
        counts.failures.append(f"seed {seed}: {error}")
    finally:
        for node in replset.nodes:
            if not node.is_running:
                counts.failures.append(f"seed {seed}: {node!r} died\n{node.epitaph()}")
                node.start()
        REAPER.remove_directory(repository.parent)


def _on_s3() -> bool:
    return os.environ.get("STORAGE") == "s3"


def _faults(network: Network | None) -> Mapping[str, float]:
    """With their weights."""
    possible = {**ALL_FAULTS, **(NETWORK_FAULTS if network is not None else {})}
    wanted = os.environ.get("FAULTS")
    return {name: possible[name] for name in wanted.split(",")} if wanted else possible


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
