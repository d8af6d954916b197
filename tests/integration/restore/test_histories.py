"""Whatever was written before, during and after a backup is in a restore, and nothing else."""

from __future__ import annotations

import random

from tests.support.histories import Told, prove_history
from tests.support.mongod import ReplicaSet

SEEDS = 1


async def test_any_moment_of_a_random_history_is_restored_exactly(one_node: ReplicaSet) -> None:
    told = Told()
    first = random.randrange(2**32)
    for seed in range(first, first + SEEDS):
        await prove_history(one_node, seed, told)
    assert not told.failures, "\n".join(told.failures)
    assert told.restores >= 4 * SEEDS
