"""A sharded cluster: two shards and config servers, an agent beside each, one backup of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.transfers import Transfers

TERMINAL = frozenset({"done", "failed", "cancelled"})
LONG_S = 90.0


class Stage(NamedTuple):
    """The cluster with its agents and a repository."""

    cluster: ShardedCluster
    agents: Agents
    ctl: Ctl

    @property
    def admin(self) -> Any:
        """Where the control collections are."""
        return self.cluster.config.client().admin

    def operation(self, name: str) -> dict[str, Any]:
        """The document of a backup's operation."""
        found = self.admin.tidelogOperations.find_one({"name": name, "kind": "backup"})
        assert found is not None
        return dict(found)

    def ended(self, name: str, within_s: float = LONG_S) -> dict[str, Any]:
        """The same, once it is over."""
        eventually(lambda: self.operation(name)["state"] in TERMINAL, within_s, every_s=0.2)
        return self.operation(name)

    def runs(self) -> list[dict[str, Any]]:
        """The runs of slices, those of the config servers last."""
        found = self.admin.tidelogSlices.find({"kind": "run"})
        return sorted(found, key=lambda run: (run["replset"] == "cfg", moment(run["start"])))

    def backup(self) -> dict[str, Any]:
        """Take one and describe it."""
        name = self.ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
        return dict(self.ctl.ok("describe-backup", name, "--with-collections"))


@pytest.fixture
def stage(sharded: ShardedCluster, tmp_path: Path) -> Iterator[Stage]:
    """Agents beside all three; `ctl` knows a member of a shard only."""
    with Agents(*sharded.sets, lead=sharded.config) as agents:
        ctl = Ctl(sharded.shards["s1"].uri())
        ctl.configure_filesystem(tmp_path)
        yield Stage(sharded, agents, ctl)


def moment(value: dict[str, int]) -> tuple[int, int]:
    """An OpTime of `ctl`'s JSON."""
    return value["T"], value["I"]


def test_backup_holds_all_sets_at_one_moment(stage: Stage) -> None:
    stage.cluster.start_balancer()
    setting = stage.cluster.balancer_setting()
    transfers = Transfers(stage.cluster)
    transfers.create()
    with transfers:
        transfers.wait_for(5)
        described = stage.backup()
    sets = {one["name"]: one for one in described["replsets"]}
    assert set(sets) == {"cfg", "rs-a", "rs-b"}
    assert [(one.get("shard"), one["is_config"]) for one in described["replsets"]] == [
        (None, True),
        ("s0", False),
        ("s1", False),
    ]
    last_write = moment(described["last_write"])
    assert all(moment(one["read_end"]) <= last_write for one in sets.values())
    routing = {one["ns"]: one["documents"] for one in sets["cfg"]["collections"]}
    assert routing["config.chunks"] == 4
    assert routing["config.collections"] == 2
    assert routing["config.databases"] == 1
    assert "config.shards" not in routing
    on_shards = {one["ns"] for name in ("rs-a", "rs-b") for one in sets[name]["collections"]}
    assert on_shards == {"bank.accounts", "bank.entries"}
    assert stage.cluster.balancer_setting() == setting
    status = stage.ctl.ok("status", "-s", "cluster")["cluster"]
    assert [(one["rs"], [node["ok"] for node in one["nodes"]]) for one in status] == [
        ("cfg", [True]),
        ("rs-a", [True]),
        ("rs-b", [True]),
    ]


def test_balancer_is_put_back_though_the_backup_dies(stage: Stage) -> None:
    stage.cluster.start_balancer()
    before = stage.cluster.balancer_setting()
    lead = stage.agents.of(stage.cluster.config.nodes[0])
    lead.terminate()
    lead.start(faults="operation.transitioned=kill@2")
    lead.wait_announced()
    name = stage.ctl.ok("backup")["name"]
    eventually(lambda: not lead.is_running, 20)
    paused = stage.cluster.balancer_setting()
    assert before is not None
    assert paused == {**before, "stopped": True}
    assert stage.admin.tidelogConfig.find_one({"_id": "balancer"})["before"] == before
    stage.ctl.ok("cancel-backup")
    lead.start()
    assert stage.ended(name)["state"] == "cancelled"
    eventually(lambda: stage.cluster.balancer_setting() == before, 20)
    assert stage.admin.tidelogConfig.find_one({"_id": "balancer"}) is None


def test_shard_without_agents_fails_the_backup_by_name(stage: Stage) -> None:
    stage.agents.of(stage.cluster.shards["s1"].nodes[0]).terminate()
    status = stage.ctl.ok("status", "-s", "cluster")["cluster"]
    assert {one["rs"]: one["nodes"][0]["errors"] for one in status}["rs-b"] == ["no agent"]
    error = stage.ctl.fails(3, "backup", "--wait")
    assert "no agent serves the replica set rs-b" in error
    assert stage.ctl.ok("list")["snapshots"] == []


def test_no_backup_while_a_collection_is_resharded(stage: Stage) -> None:
    config = stage.cluster.config.client()["config"]
    config["reshardingOperations"].insert_one({"_id": 1, "ns": "app.events"})
    try:
        error = stage.ctl.fails(3, "backup", "--wait")
    finally:
        config["reshardingOperations"].delete_one({"_id": 1})
    assert "app.events is being resharded" in error


@pytest.mark.story("F5", "PBM-1345")
def test_coverage_is_common_to_all_and_ends_where_a_collection_is_resharded(stage: Stage) -> None:
    cluster, ctl = stage.cluster, stage.ctl
    cluster.create_database("app")
    cluster.shard_collection("app.events", {"k": 1})
    cluster.client_of("s0")["app"]["events"].insert_many([{"k": n, "z": n % 3} for n in range(50)])
    ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
    base = stage.backup()
    (covered,) = eventually(lambda: ctl.ok("list")["pitr"]["ranges"], LONG_S, every_s=0.5)
    assert covered["start_ts"] == base["last_write"]
    others = {"cfg", "rs-a"}
    stage.agents.of(cluster.shards["s1"].nodes[0]).terminate()
    until = {run["replset"]: run["covered_until"] for run in stage.runs()}
    assert set(until) == {*others, "rs-b"}

    def others_go_on() -> bool:
        now = {run["replset"]: run["covered_until"] for run in stage.runs()}
        return all(moment(now[name]) > moment(until["rs-b"]) for name in others)

    eventually(others_go_on, LONG_S, every_s=0.5)
    (covered,) = ctl.ok("list")["pitr"]["ranges"]
    assert covered["end_ts"] == until["rs-b"]
    stage.agents.of(cluster.shards["s1"].nodes[0]).start()
    cluster.reshard("app.events", {"z": 1})
    gaps = eventually(lambda: ctl.ok("list")["pitr"]["gaps"], LONG_S, every_s=0.5)
    assert [(gap["replset"], gap["cause"]) for gap in gaps] == [
        ("cfg", "a collection was resharded")
    ]
    eventually(lambda: not [run for run in stage.runs()[-1:] if run["sealed"]], LONG_S)
    again = stage.backup()
    spans = eventually(lambda: ctl.ok("list")["pitr"]["ranges"][1:], LONG_S, every_s=0.5)
    assert spans[0]["start_ts"] == again["last_write"]


def test_part_that_dies_after_last_write_was_chosen_keeps_it(stage: Stage) -> None:
    Transfers(stage.cluster).create()
    dying = stage.agents.of(stage.cluster.shards["s1"].nodes[0])
    dying.terminate()
    dying.start(faults="snapshot.manifest_written=kill")
    dying.wait_announced()
    name = stage.ctl.ok("backup")["name"]
    eventually(lambda: not dying.is_running, 20)
    chosen = stage.operation(name)["result"]["last_write"]
    done = stage.operation(name)["parts"][1]
    assert done["replset"] == "rs-a"
    dying.start()
    ended = stage.ended(name)
    assert ended["state"] == "done", ended["error"]
    assert ended["result"]["last_write"] == chosen
    assert [part["attempts"] for part in ended["parts"]] == [1, 1, 2]
