"""The rows of the crash table that need shards: whatever fails in a sharded cluster, wherever.

Config servers, two shards, an agent beside each; one of them is armed at one point. Of each case is
asked what `test_crash` asks, and that the balancer is as it was and all routing tables are, too.
"""

from __future__ import annotations

import time

import pytest

from tests.cluster.scene import note
from tests.cluster.stage import Stage
from tests.support.crashes import ON_SHARD, Case, Driver, chosen, let_it_fail
from tests.support.leftovers import check_quiet, sweep, unnamed
from tests.support.mongod import ShardedCluster
from tests.support.sharded_scene import SAME, Seen, furnish
from tests.support.transfers import DATABASE

pytestmark = pytest.mark.timeout(400)

RECOVERED_WITHIN_S = 60.0
LONG_S = 180.0


@pytest.fixture(autouse=True)
def furnished(stage: Stage) -> None:
    """Data on both shards, the balancer on."""
    stage.cluster.start_balancer()
    furnish(stage.cluster)
    stage.cluster.create_database(DATABASE)


@pytest.mark.parametrize("case", chosen(is_sharded=True), ids=str)
def test_whatever_fails_wherever_the_cluster_is_as_it_was(stage: Stage, case: Case) -> None:
    cluster, ctl, is_restore = stage.cluster, stage.ctl, case.driver is Driver.SHARDED_RESTORE
    setting, seen = cluster.balancer_setting(), Seen(cluster, SAME)
    first = stage.backup(LONG_S)
    replset = cluster.shards["s1"] if case.point in ON_SHARD else cluster.config
    agent = stage.arm(case.faults, replset.nodes[0])
    if is_restore:
        _change(cluster)
    op_id = ctl.ok(*(("restore", first, "-y") if is_restore else ("backup",)))["op_id"]
    let_it_fail(case, agent, lambda: stage.operation(_id=op_id), stage.agents.log_tails)
    recovered = time.monotonic()
    found = stage.ended(RECOVERED_WITHIN_S, _id=op_id)
    note(f"{case}: over {time.monotonic() - recovered:.1f} s after recovery")
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
        stage.restore(first, LONG_S)
        _check_same(cluster, seen)
    name = stage.backup(LONG_S)
    _change(cluster)
    stage.restore(name, LONG_S)
    _check_same(cluster, seen)
    check_quiet(stage.admin, [one.client() for one in cluster.sets])
    assert cluster.balancer_setting() == setting


def _change(cluster: ShardedCluster) -> None:
    cluster.client_of("s1")["shop"]["plain"].delete_many({})
    cluster.drop_collection("shop.gone")


def _check_same(cluster: ShardedCluster, seen: Seen) -> None:
    now = Seen(cluster, SAME)
    assert (now.hashes, now.routing) == (seen.hashes, seen.routing)
