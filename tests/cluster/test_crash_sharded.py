"""The rows of the crash table that need shards: whatever fails in a sharded cluster, wherever.

Config servers, two shards, an agent beside each; one of them is armed at one point. Of each case is
asked what `test_crash` asks, and that the balancer is as it was and all routing tables are, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.scene import note
from tests.support.agents import AgentProcess, Agents
from tests.support.crashes import ON_SHARD, Case, Driver, chosen, let_it_fail
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.leftovers import TERMINAL, check_quiet, sweep, unnamed
from tests.support.mongod import ShardedCluster
from tests.support.sharded_scene import SAME, Seen, furnish
from tests.support.transfers import DATABASE

pytestmark = pytest.mark.timeout(400)

RECOVERED_WITHIN_S = 60.0
LONG_S = 180.0


@dataclass
class Stage:
    """The cluster, its agents and a repository."""

    cluster: ShardedCluster
    agents: Agents
    ctl: Ctl
    repository: Path

    @property
    def admin(self) -> Any:
        """Where the control collections are."""
        return self.cluster.config.client().admin

    def operation(self, op_id: str) -> dict[str, Any]:
        """Its document."""
        found = self.admin.tidelogOperations.find_one({"_id": op_id})
        assert found is not None
        return dict(found)

    def arm(self, case: Case) -> AgentProcess:
        """Start the agent that passes the point anew, armed."""
        replset = self.cluster.shards["s1"] if case.point in ON_SHARD else self.cluster.config
        agent = self.agents.of(replset.nodes[0])
        agent.terminate()
        agent.start(faults=case.faults)
        agent.wait_announced()
        return agent

    def restore(self, name: str) -> None:
        """Restore a backup and wait for the end."""
        self.ctl.ok("restore", name, "-y", "--wait", within_s=LONG_S)


@pytest.fixture
def stage(sharded: ShardedCluster, tmp_path: Path) -> Iterator[Stage]:
    """Data on both shards, the balancer on."""
    with Agents(*sharded.sets, lead=sharded.config) as agents:
        repository = tmp_path / "repository"
        repository.mkdir()
        found = Stage(sharded, agents, Ctl(sharded.shards["s1"].uri()), repository)
        found.ctl.configure_filesystem(repository)
        sharded.start_balancer()
        furnish(sharded)
        sharded.create_database(DATABASE)
        yield found


@pytest.mark.parametrize("case", chosen(is_sharded=True), ids=str)
def test_whatever_fails_wherever_the_cluster_is_as_it_was(stage: Stage, case: Case) -> None:
    cluster, ctl, is_restore = stage.cluster, stage.ctl, case.driver is Driver.SHARDED_RESTORE
    setting, seen = cluster.balancer_setting(), Seen(cluster, SAME)
    first = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    agent = stage.arm(case)
    if is_restore:
        _change(cluster)
    op_id = ctl.ok(*(("restore", first, "-y") if is_restore else ("backup",)))["op_id"]
    let_it_fail(case, agent, lambda: stage.operation(op_id), stage.agents.log_tails)
    recovered = time.monotonic()

    def over() -> bool:
        return stage.operation(op_id)["state"] in TERMINAL

    eventually(over, RECOVERED_WITHIN_S, describe=stage.agents.log_tails)
    note(f"{case}: over {time.monotonic() - recovered:.1f} s after recovery")
    found = stage.operation(op_id)
    if found["state"] == "failed" and case.action == "permanent":
        assert "fault injected" in found["error"]["message"], found
    else:
        assert found["state"] == "done", found
    check_quiet(stage.admin, [one.client() for one in cluster.sets])
    assert cluster.balancer_setting() == setting
    verified = ctl.ok("verify", "--deep", "--max-age", "0", "--wait", within_s=LONG_S)
    assert verified["harmed"] == 0, verified
    sweep(stage.admin, ctl, stage.repository)
    assert unnamed(stage.repository, with_slices=True) == []
    if is_restore:
        stage.restore(first)
        _check_same(cluster, seen)
    name = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    _change(cluster)
    stage.restore(name)
    _check_same(cluster, seen)
    check_quiet(stage.admin, [one.client() for one in cluster.sets])
    assert cluster.balancer_setting() == setting


def _change(cluster: ShardedCluster) -> None:
    cluster.client_of("s1")["shop"]["plain"].delete_many({})
    cluster.drop_collection("shop.gone")


def _check_same(cluster: ShardedCluster, seen: Seen) -> None:
    now = Seen(cluster, SAME)
    assert (now.hashes, now.routing) == (seen.hashes, seen.routing)
