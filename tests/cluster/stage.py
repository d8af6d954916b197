"""A sharded cluster on which agents run: what `Scene` is for one replica set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.agents import AgentProcess, Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.leftovers import TERMINAL
from tests.support.mongod import MongodNode, ShardedCluster


@dataclass(frozen=True)
class Stage:
    """The cluster, its agents and a repository. `ctl` knows a member of one shard only."""

    cluster: ShardedCluster
    agents: Agents
    ctl: Ctl
    repository: Path

    @property
    def admin(self) -> Any:
        """Where the control collections are."""
        return self.cluster.config.client().admin

    def operation(self, **wanted: str) -> dict[str, Any]:
        """The document of the operation with these fields."""
        found = self.admin.tidelogOperations.find_one(wanted)
        assert found is not None, wanted
        return dict(found)

    def ended(self, within_s: float, **wanted: str) -> dict[str, Any]:
        """The same, once it is over."""

        def is_over() -> bool:
            return self.operation(**wanted)["state"] in TERMINAL

        eventually(is_over, within_s, every_s=0.2, describe=self.agents.log_tails)
        return self.operation(**wanted)

    def backup(self, within_s: float) -> str:
        """Take one; answers its name."""
        return str(self.ctl.ok("backup", "--wait", within_s=within_s)["name"])

    def restore(self, name: str, within_s: float) -> None:
        """Bring a backup back."""
        self.ctl.ok("restore", name, "-y", "--wait", within_s=within_s)

    def arm(self, faults: str, node: MongodNode) -> AgentProcess:
        """Start the agent beside the node anew, so that it fails there."""
        agent = self.agents.of(node)
        agent.terminate()
        agent.start(faults=faults)
        agent.wait_announced()
        return agent
