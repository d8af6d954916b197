"""Keyfile and logins on a sharded cluster: the printed roles are enough for backups and restores of
all of it, and the shards know the restored routing without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.test_auth import agent_uri, grant, login, printed_roles
from tests.support.agents import Agents
from tests.support.cluster_image import ClusterImage, misrouted, settle
from tests.support.ctl import Ctl
from tests.support.mongod import Auth, ClusterOptions, ShardedCluster
from tests.support.upheaval import Upheaval

LONG_S: Final = 120.0


@pytest.fixture
def guarded(mongod: Path) -> Iterator[ShardedCluster]:
    """A cluster of its own, since logins are chosen when it starts."""
    with ShardedCluster(ClusterOptions(name="g-", auth=Auth())) as cluster:
        for one in cluster.sets:
            grant(one.client(), printed_roles("restore"))
        yield cluster


@pytest.mark.timeout(180)
def test_printed_roles_are_enough(guarded: ShardedCluster, tmp_path: Path) -> None:
    cluster = guarded
    upheaval = Upheaval(cluster, 3)
    upheaval.create()
    with Agents(*cluster.sets, lead=cluster.config, uri_of=agent_uri) as agents:
        ctl = Ctl(f"mongodb://{login()}{cluster.shards['s0'].nodes[0].host}/?authSource=admin")
        ctl.configure_filesystem(tmp_path)
        settle(cluster)
        seen = ClusterImage(cluster)
        name = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
        cluster.start_balancer()
        balancer = cluster.balancer_setting()
        for _ in range(8):
            upheaval.step()
        cluster.shard_collection("shop.later", {"k": 1})
        report = ctl.ok("restore", name, "-y", "--wait", within_s=LONG_S)
        assert [part["warnings"] for part in report["replsets"]] == [[], [], []]
        assert not seen.differences(ClusterImage(cluster))
        assert not misrouted(cluster)
        assert cluster.balancer_setting() == balancer
        for shard in cluster.shards:
            known = cluster.client_of(shard).admin.command({"getShardVersion": "shop.later"})
            assert known["global"] in ("UNKNOWN", "UNSHARDED") or not known["global"].time, known
        denied = cluster.config.client().admin.tidelogEvents.find_one(
            {"fields.error": {"$regex": "authorized"}}
        )
        assert denied is None, agents.log_tails()
