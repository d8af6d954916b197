"""Faults on a sharded cluster: each hits one replica set of it, any shard or the config servers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.support.agents import Agents
from tests.support.chaos import (
    AGENT_FAULTS,
    NETWORK_FAULTS,
    NODE_FAULTS,
    STORAGE_FAULTS,
    Chaos,
)
from tests.support.mongod import ShardedCluster
from tests.support.network import Network

# Members taken away and writes rolled back are matters of one replica set, and are proven there;
# what rolls back also writes what no routing table knows.
_OF_ONE_SET: Final = frozenset({"remove_node", "roll_back"})
SHARD_FAULTS: Final[Mapping[str, float]] = {
    **AGENT_FAULTS,
    **{name: weight for name, weight in NODE_FAULTS.items() if name not in _OF_ONE_SET},
    **STORAGE_FAULTS,
}
RESTORE_FAULTS: Final[Mapping[str, float]] = {
    name: weight for name, weight in SHARD_FAULTS.items() if name not in STORAGE_FAULTS
}


BACKUP_FAULTS: Final[Mapping[str, float]] = {"kill_agent": 1, "pause_agent": 1, "step_down": 1}


def possible(faults: Mapping[str, float], network: Network | None) -> Mapping[str, float]:
    """These and, where links can be cut, the cuts."""
    return {**faults, **(NETWORK_FAULTS if network is not None else {})}


class ShardChaos(Chaos):
    """As `Chaos`; `where` says which sets were hit, in turn. Links are cut between any agent or
    node and the set that is hit: its own or another, the config servers among them."""

    def __init__(
        self,
        seed: int,
        cluster: ShardedCluster,
        agents: Agents,
        repository: Path,
        *,
        faults: Mapping[str, float] = SHARD_FAULTS,
        storage_gone_s: float = 10.0,
        network: Network | None = None,
    ) -> None:
        super().__init__(
            seed,
            cluster.config,
            agents,
            repository,
            faults=faults,
            storage_gone_s=storage_gone_s,
            network=network,
        )
        self._sets = cluster.sets
        self._choice = random.Random(f"where/{seed}")
        self.where: list[str] = []

    def inject(self, name: str) -> None:
        """One fault on one of the sets, and its end."""
        self._replset = self._choice.choice(self._sets)
        self.where.append(f"{name} ({self._replset.name})")
        super().inject(name)
