"""The soak of a sharded cluster: `make soak SHARDS=2`.

A round: the cluster is furnished, backed up while agents fail, written to by two-phase transfers
between its shards, changed in structure, hit by faults (links are cut, too, where they can be);
then restored to the moments at which it held still and to random ones, most of them with a fault in
the middle of the restore. After each the books must balance and hold what they held at that moment,
the routing tables must say what the data says, and where it held still, the hashes of every
collection on every shard must be equal.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Final

from pymongo.errors import PyMongoError

from tests.support.agents import Agents
from tests.support.cluster_image import ClusterImage, misrouted, settle
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.leftovers import check_nothing_left
from tests.support.mongod import HERE, ClusterOptions, Machine, ShardedCluster
from tests.support.network import Network
from tests.support.reaper import REAPER
from tests.support.shard_chaos import (
    BACKUP_FAULTS,
    RESTORE_FAULTS,
    SHARD_FAULTS,
    ShardChaos,
    possible,
)
from tests.support.transfers import Moment, Transfers, check_books, check_moment, moment_now
from tests.support.upheaval import Upheaval

SLOW_S: Final = 60.0
"""What takes longer is told of, with the agents' logs."""
OVER_S: Final = 300.0
"""How long an operation may take that is hit by a fault."""
_TERMINAL: Final = frozenset({"done", "failed", "cancelled"})


@dataclass(frozen=True)
class Ground:
    """The network whose links can be cut, if there is one, and where the next agent runs."""

    network: Network | None
    machine: Callable[[], Machine]


@dataclass
class Sums:
    """What was done and found so far."""

    rounds: int = 0
    transfers: int = 0
    uncertain: int = 0
    steps: int = 0
    restores: int = 0
    at_rest: int = 0
    """Restores to moments at which the cluster held still: compared hash by hash."""
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.rounds} rounds, {self.transfers} transfers ({self.uncertain} uncertain), "
            f"{self.steps} changes of structure, {self.restores} restores compared ({self.at_rest} "
            f"by every hash, slowest {self.slowest_s:.1f} s), faults: {faults or 'none'}, "
            f"{len(self.failures)} failures"
        )


def soak(
    minutes: float,
    first: int,
    shards: int,
    say: Callable[[str], None],
    network: Network | None,
) -> int:
    """Rounds until the time is over; answers the exit status."""
    machine = network.machine if network is not None else lambda: HERE
    sums = Sums()
    end = time.monotonic() + minutes * 60
    options = ClusterOptions(
        shards=shards,
        nodes=int(os.environ.get("NODES") or 3),
        oplog_mb=256,
        # What a killed coordinator had not prepared yet is given up soon.
        parameters={"transactionLifetimeLimitSeconds": 8},
        machine=machine,
    )
    agents = options.nodes * (shards + 1)
    # The agents of each round, on the machines of those before them.
    ground = Ground(network, cycle([machine() for _ in range(agents)]).__next__)
    with ShardedCluster(options) as cluster:
        for seed in range(first, first + 100_000):
            if time.monotonic() > end:
                break
            before = len(sums.failures)
            with_faults = seed % 4 != 0
            try:
                _Round(cluster, seed, sums, say, ground, with_faults=with_faults).run()
            except (AssertionError, PyMongoError) as error:
                sums.failures.append(f"seed {seed}: {error}")
            say(f"seed {seed}: {sums}")
            for failure in sums.failures[before:]:
                say(f"  {failure}")
    say(f"soak ended: {sums}")
    return 1 if sums.failures else 0


class _Round:
    """One history and the restores to moments of it."""

    def __init__(
        self,
        cluster: ShardedCluster,
        seed: int,
        sums: Sums,
        say: Callable[[str], None],
        ground: Ground,
        *,
        with_faults: bool,
    ) -> None:
        self._cluster = cluster
        self._seed = seed
        self._sums = sums
        self._say = say
        self._ground = ground
        self._rng = random.Random(seed)
        self._with_faults = with_faults
        self._directory = REAPER.make_directory("tidelog-soak-")
        self._repository = self._directory / "repository"
        self._repository.mkdir()

    def run(self) -> None:
        """From an empty cluster to an empty cluster."""
        cluster = self._cluster
        try:
            cluster.ready()
            cluster.clean()
            cluster.start_balancer()
            beside = self._ground.machine
            with Agents(*cluster.sets, lead=cluster.config, machine=beside) as agents:
                self._prove(agents)
        finally:
            REAPER.remove_directory(self._directory)
        self._sums.rounds += 1

    def _prove(self, agents: Agents) -> None:
        cluster, sums = self._cluster, self._sums
        balancer = cluster.balancer_setting()
        ctl = Ctl(list(cluster.shards.values())[-1].uri())
        ctl.configure_filesystem(self._repository)
        ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=2")
        chaos = ShardChaos(
            self._seed, cluster, agents, self._repository, network=self._ground.network
        )
        transfers = Transfers(cluster, accounts=10, threads=3, seed=self._seed, pause_s=0.02)
        transfers.create()
        upheaval = Upheaval(cluster, self._seed)
        upheaval.create()
        held: list[tuple[Moment, ClusterImage]] = []
        with transfers:
            transfers.wait_for(5)
            backup = self._backup(ctl, chaos)
            for _ in range(3):
                self._fault(chaos, SHARD_FAULTS)
                for _ in range(self._rng.randrange(1, 4)):
                    upheaval.step()
                transfers.wait_for(20, 60.0)
                held.append(self._hold_still(transfers))
                transfers.wait_for(5, 60.0)
            transfers.wait_for(20, 60.0)
        sums.transfers += transfers.acknowledged
        sums.uncertain += len(transfers.done) - transfers.acknowledged
        sums.steps += len(upheaval.steps)
        last = max(one.acknowledged_at for one in transfers.done if one.acknowledged_at)
        self._wait_covered(ctl, agents, last)
        targets: list[tuple[Moment, ClusterImage | None]] = [*held]
        targets += [(at, None) for at in self._moments(transfers, _moment(backup), last)]
        self._rng.shuffle(targets)
        for at, image in targets:
            try:
                took_s = self._restore(ctl, chaos, backup["name"], at)
                if took_s > SLOW_S:
                    self._say(f"  seed {self._seed} to {at}: {took_s:.0f} s, {chaos.where[-1:]}")
                    self._keep_logs(agents, at)
                self._compare(transfers, at, image)
            except (AssertionError, PyMongoError) as error:
                story = f"{chaos.where[-3:]}, {upheaval.steps}"
                sums.failures.append(f"seed {self._seed} to {at}: {str(error)[:1500]}; {story}")
                self._keep_logs(agents, at)
        eventually(
            lambda: cluster.balancer_setting() == balancer,
            60.0,
            describe=lambda: f"the balancer: {cluster.balancer_setting()}, was {balancer}",
        )
        clients = [one.client() for one in cluster.sets]
        check_nothing_left(cluster.config.client().admin, clients, ctl, self._repository)
        sums.faults.update(chaos.counts)
        self._say(f"  seed {self._seed}: {', '.join(chaos.where)}; {', '.join(upheaval.steps)}")

    def _fault(self, chaos: ShardChaos, faults: Mapping[str, float]) -> None:
        if self._with_faults:
            weighed = possible(faults, self._ground.network)
            chaos.inject(self._rng.choices(list(weighed), list(weighed.values()))[0])

    def _backup(self, ctl: Ctl, chaos: ShardChaos) -> dict[str, Any]:
        op_id = str(ctl.ok("backup")["op_id"])
        self._fault(chaos, BACKUP_FAULTS)
        found = self._over(op_id)
        assert found["state"] == "done", f"the backup: {found['error']}"
        return {"name": found["name"], "last_write": found["result"]["last_write"]}

    def _over(self, op_id: str) -> dict[str, Any]:
        log = self._cluster.config.client()["admin"]["tidelogOperations"]

        def ask() -> dict[str, Any] | None:
            found = log.find_one({"_id": op_id})
            return found if found is not None and found["state"] in _TERMINAL else None

        found = eventually(
            ask,
            OVER_S,
            every_s=0.2,
            retry_on=(PyMongoError,),
            describe=lambda: str(log.find_one({"_id": op_id})),
        )
        assert found is not None
        return found

    def _hold_still(self, transfers: Transfers) -> tuple[Moment, ClusterImage]:
        with transfers.quiesced(90.0):
            settle(self._cluster)
            moment = max(moment_now(one.client()) for one in self._cluster.sets)
            wrong = misrouted(self._cluster)
            assert not wrong, f"before any restore: {wrong}"
            return moment, ClusterImage(self._cluster)

    def _moments(self, transfers: Transfers, base: Moment, last: Moment) -> list[Moment]:
        """Some `(T, I)` between base and end, not only where something was acknowledged."""
        ends = {one.acknowledged_at for one in transfers.done if one.acknowledged_at}
        wanted = [at for at in sorted(ends) if base < at < last]
        count = min(int(os.environ.get("TARGETS") or 4), len(wanted))
        found = []
        for at in self._rng.sample(wanted, count):
            near = (at[0], max(0, at[1] - self._rng.randrange(4)))
            found.append(near if near > base else at)
        return found

    def _wait_covered(self, ctl: Ctl, agents: Agents, at: Moment) -> None:
        def covered() -> bool:
            ranges = ctl.ok("list")["pitr"]["ranges"]
            return bool(ranges) and _moment_of(ranges[-1]["end_ts"]) >= at

        eventually(covered, 120.0, every_s=0.5, describe=agents.log_tails)

    def _restore(self, ctl: Ctl, chaos: ShardChaos, backup: str, at: Moment) -> float:
        started = time.monotonic()
        wanted = ("--time", f"{at[0]},{at[1]}", "--base-snapshot", backup, "--queue")
        op_id = str(ctl.ok("restore", *wanted, "-y")["op_id"])
        if self._rng.random() < 0.8:
            time.sleep(self._rng.uniform(0.2, 3.0))
            self._fault(chaos, RESTORE_FAULTS)
        found = self._over(op_id)
        assert found["state"] == "done", f"the restore: {found['error']}"
        for one in self._cluster.sets:
            one.wait_healthy(90.0)
        took_s = time.monotonic() - started
        self._sums.slowest_s = max(self._sums.slowest_s, took_s)
        return took_s

    def _keep_logs(self, agents: Agents, at: Moment) -> None:
        """What the agents wrote, beside the repositories, for whoever looks into a failure."""
        kept = Path(
            os.environ.get("LOGS") or gettempdir(), f"soak-{self._seed}-{at[0]}-{at[1]}.log"
        )
        kept.write_text("\n".join(f"--- {agent!r}\n{agent.log_text()}" for agent in agents))
        self._say(f"  logs: {kept}")

    def _compare(self, transfers: Transfers, at: Moment, image: ClusterImage | None) -> None:
        cluster, sums = self._cluster, self._sums
        clients = [cluster.client_of(shard) for shard in cluster.shards]
        check_moment(check_books(clients), transfers.done, at)
        wrong = misrouted(cluster)
        if image is not None:
            wrong += image.differences(ClusterImage(cluster))
            sums.at_rest += 1
        sums.restores += 1
        assert not wrong, "\n".join(wrong[:10])


def _moment(backup: dict[str, Any]) -> Moment:
    return _moment_of(backup["last_write"])


def _moment_of(value: dict[str, int]) -> Moment:
    return value["T"], value["I"]
