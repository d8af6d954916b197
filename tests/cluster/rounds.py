"""One round of proof: a seeded history with faults, then restores to moments of it, compared.

The ring runs a few short rounds; the soak runs them until its time is over.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp

from tests.cluster.scene import Scene, note
from tests.support.chaos import Chaos
from tests.support.compare import Fingerprint, diff
from tests.support.ledger import DATABASES, Ledger, Moment
from tests.support.network import Network
from tests.support.workload import DEFAULT_WEIGHTS, Workload

WEIGHTS: Mapping[str, float] = {
    **DEFAULT_WEIGHTS,
    "txn_prepared": 1.0,
    "txn_prepared_aborted": 0.5,
    "txn_large": 0.05,
    "txn_large_prepared": 0.05,
}
CALM_WEIGHTS: Mapping[str, float] = DEFAULT_WEIGHTS
"""Without prepared transactions: killed in the middle, they stay open for ever."""


@dataclass
class Counts:
    """What was done and compared so far."""

    rounds: int = 0
    actions: int = 0
    acknowledged: int = 0
    uncertain: int = 0
    restores: int = 0
    documents: int = 0
    slowest_s: float = 0.0
    """Of the restores."""
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        return (
            f"{self.rounds} rounds, {self.actions} actions of the workload, {self.acknowledged} "
            f"acknowledged writes ({self.uncertain} uncertain), {self.restores} restores compared, "
            f"the slowest in {self.slowest_s:.0f} s, {self.documents} ledger documents checked, "
            f"faults: {faults or 'none'}, "
            f"{len(self.failures)} failures"
        )


def prove_round(
    scene: Scene,
    seed: int,
    counts: Counts,
    *,
    write_s: float,
    moments: int = 3,
    faults: Mapping[str, float] | None = None,
    rate: float = 60.0,
    targets: int = 2,
    storage_gone_s: float = 20.0,
    network: Network | None = None,
    storage_away: Callable[[], AbstractContextManager[Any]] | None = None,
    backs_up: bool = False,
) -> None:
    """Write with this seed for so long, holding still at some moments; then restore to each, and to
    `targets` acknowledged writes between them, in random order. What is not as it was goes to
    `counts.failures`, with the seed. `backs_up` asks for a backup before every fault, and does not
    care how it ends."""
    rng = random.Random(seed)
    held: list[tuple[Moment, Fingerprint]] = []
    with ExitStack() as stack:
        workload = Workload(
            scene.replset.connect(scene.replset.uri()),
            seed,
            weights=CALM_WEIGHTS if faults else WEIGHTS,
            rate=rate,
            write_concern={"w": "majority", "wtimeout": 15_000},
        ).start()
        stack.callback(workload.stop, quietly=True)
        ledger = stack.enter_context(
            Ledger(scene.replset.uri(), seed, writers=2, rate=15, prepared=False)
        )
        time.sleep(1.0)
        base = scene.wait_done(scene.begin("backup", "--queue"))
        chaos = Chaos(
            seed,
            scene.replset,
            scene.agents,
            scene.repository,
            faults=faults or {},
            calm=ledger.calm,
            storage_gone_s=storage_gone_s,
            network=network,
            storage_away=storage_away,
        )
        end = time.monotonic() + write_s
        for turn in range(moments):
            if backs_up:
                scene.begin("backup", "--queue")
            if faults and turn == 0 and "storage_gone" in faults:
                chaos.inject("storage_gone")
            elif faults:
                chaos.inject(rng.choices(list(faults), list(faults.values()))[0])
            time.sleep(max(0.0, (end - time.monotonic()) / (moments - turn)))
            ledger.stop()
            with workload.quiesced() as at:
                held.append(((at.time, at.inc), scene.fingerprint()))
            if turn + 1 < moments:
                ledger.start()
        chaos.check_alive()
        counts.actions += workload.stop().total
        counts.acknowledged += ledger.acknowledged
        counts.uncertain += ledger.uncertain
        counts.faults.update(chaos.counts)
        chosen: list[tuple[Moment, Fingerprint | None]] = [*held]
        begin = Timestamp(base["result"]["last_write"]["T"], base["result"]["last_write"]["I"])
        between = [m for m in ledger.moments() if (begin.time, begin.inc) < m <= held[-1][0]]
        chosen += [(at, None) for at in rng.sample(between, min(targets, len(between)))]
        rng.shuffle(chosen)
        scene.wait_covered(held[-1][0])
        holes = [gap for gap in scene.gaps() if gap["cause"] != "restored"]
        counts.failures += [f"seed {seed}: a gap: {gap}" for gap in holes]
        for target, expected in chosen:
            _compare(scene, ledger, seed, target, expected, counts)
    counts.rounds += 1


def _compare(
    scene: Scene,
    ledger: Ledger,
    seed: int,
    at: Moment,
    expected: Fingerprint | None,
    counts: Counts,
) -> None:
    where = f"seed {seed}, restored to {at[0]},{at[1]}"
    began = time.monotonic()
    done = scene.watch_restore("--time", f"{at[0]},{at[1]}", "--queue")
    taken_s = time.monotonic() - began
    counts.slowest_s = max(counts.slowest_s, taken_s)
    if done.status != 0:
        counts.failures.append(f"{where}: {done}")
        return
    counts.restores += 1
    verdict = ledger.judge(scene.client, at)
    counts.documents += verdict.checked
    if not verdict.is_exact:
        counts.failures.append(f"{where}: {verdict}")
    found = diff(expected, scene.fingerprint()) if expected is not None else []
    counts.failures += [f"{where}: {line}" for line in found[:10]]
    how = "exact" if verdict.is_exact and not found else "NOT EXACT"
    note(f"{where} in {taken_s:.1f} s: {how}, {verdict.checked} ledger documents")


def forget(scene: Scene) -> None:
    """Drop what a round wrote, so that the next one begins on an empty set."""
    for database in scene.client.list_database_names():
        if database not in {"admin", "config", "local"}:
            scene.client.drop_database(database)
    assert not set(DATABASES) & set(scene.client.list_database_names())
