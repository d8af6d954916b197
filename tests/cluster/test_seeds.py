"""Random histories with DDL, transactions and time series, restored to moments at which they held
still: equal by mongod's own hashes."""

from __future__ import annotations

import random

import pytest

from tests.cluster.rounds import Counts, forget, prove_round
from tests.cluster.scene import Scene, note

pytestmark = pytest.mark.timeout(240)

SEEDS = 2


def test_any_moment_of_a_random_history_is_restored_exactly(scene: Scene) -> None:
    scene.enable_pitr(2.0)
    first = random.randrange(2**32)
    counts = Counts()
    for seed in range(first, first + SEEDS):
        prove_round(scene, seed, counts, write_s=6.0, moments=2)
        forget(scene)
    note(str(counts))
    assert not counts.failures, "\n".join(counts.failures)
    assert not scene.gaps() or {gap["cause"] for gap in scene.gaps()} == {"restored"}
