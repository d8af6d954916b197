"""Shards that come and go between operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.agents import Agents
from tests.support.cluster_image import misrouted
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.sharded_scene import furnish

pytestmark = pytest.mark.timeout(240)

LONG_S = 120.0


@pytest.fixture
def growing(sharded: ShardedCluster) -> Iterator[ShardedCluster]:
    """The shared cluster, which has its two shards again afterwards."""
    before = dict(sharded.shards)
    yield sharded
    for name in set(sharded.shards) - set(before):
        sharded.remove_shard(name)


def test_shards_come_and_go_between_operations(growing: ShardedCluster, tmp_path: Path) -> None:
    cluster, ctl = growing, Ctl(growing.shards["s0"].uri())
    with ExitStack() as stack:
        stack.enter_context(Agents(*cluster.sets, lead=cluster.config))
        ctl.configure_filesystem(tmp_path)
        ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
        furnish(cluster)
        two = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
        third = stack.enter_context(cluster.new_set("rs-c"))
        cluster.add_shard("s2", third)
        causes = eventually(
            lambda: {gap["cause"] for gap in ctl.ok("list")["pitr"]["gaps"]}, LONG_S, every_s=0.5
        )
        assert causes == {"a shard was added"}
        error = ctl.fails(3, "backup", "--wait", within_s=LONG_S)
        assert "no agent serves the replica set rs-c" in error
        with Agents(third, lead=cluster.config):
            cluster.create_database("third", "s2")
            third.client()["third"]["c"].insert_one({"_id": 1})
            three = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
            # The third gets nothing of a backup from before it, and loses what it had.
            ctl.ok("restore", two, "-y", "--wait", within_s=LONG_S)
            assert "third" not in third.client().list_database_names()
            assert not misrouted(cluster)
        cluster.remove_shard("s2")
        error = ctl.fails(3, "restore", three, "-y", "--wait", within_s=LONG_S)
        assert "there is no rs-c here" in error
        ctl.ok("restore", two, "-y", "--wait", within_s=LONG_S)
        assert not misrouted(cluster)
        assert cluster.client_of("s1")["shop"]["plain"].count_documents({}) == 50
