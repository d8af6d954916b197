"""A sharded cluster: two shards and config servers, an agent beside each, one backup of all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.scene import moment
from tests.cluster.stage import Stage
from tests.support.eventually import eventually
from tests.support.transfers import Transfers

LONG_S = 90.0


def runs(stage: Stage) -> list[dict[str, Any]]:
    """The runs of slices, those of the config servers last."""
    found = stage.admin.tidelogSlices.find({"kind": "run"})
    return sorted(found, key=lambda run: (run["replset"] == "cfg", moment(run["start"])))


def described_backup(stage: Stage) -> dict[str, Any]:
    """Take one and describe it."""
    return dict(stage.ctl.ok("describe-backup", stage.backup(LONG_S), "--with-collections"))


def test_backup_holds_all_sets_at_one_moment(stage: Stage) -> None:
    stage.cluster.start_balancer()
    setting = stage.cluster.balancer_setting()
    transfers = Transfers(stage.cluster)
    transfers.create()
    with transfers:
        transfers.wait_for(5)
        described = described_backup(stage)
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
    lead = stage.arm("operation.transitioned=kill@2", stage.cluster.config.nodes[0])
    name = stage.ctl.ok("backup")["name"]
    eventually(lambda: not lead.is_running, 20)
    paused = stage.cluster.balancer_setting()
    assert before is not None
    assert paused == {**before, "stopped": True}
    assert stage.admin.tidelogConfig.find_one({"_id": "balancer"})["before"] == before
    stage.ctl.ok("cancel-backup")
    lead.start()
    assert stage.ended(LONG_S, name=name)["state"] == "cancelled"
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
    base = described_backup(stage)
    (covered,) = eventually(lambda: ctl.ok("list")["pitr"]["ranges"], LONG_S, every_s=0.5)
    assert covered["start_ts"] == base["last_write"]
    others = {"cfg", "rs-a"}
    stage.agents.of(cluster.shards["s1"].nodes[0]).terminate()
    until = {run["replset"]: run["covered_until"] for run in runs(stage)}
    assert set(until) == {*others, "rs-b"}

    def others_go_on() -> bool:
        now = {run["replset"]: run["covered_until"] for run in runs(stage)}
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
    eventually(lambda: not [run for run in runs(stage)[-1:] if run["sealed"]], LONG_S)
    again = described_backup(stage)
    spans = eventually(lambda: ctl.ok("list")["pitr"]["ranges"][1:], LONG_S, every_s=0.5)
    assert spans[0]["start_ts"] == again["last_write"]


def test_part_that_dies_after_last_write_was_chosen_keeps_it(stage: Stage) -> None:
    Transfers(stage.cluster).create()
    dying = stage.arm("snapshot.manifest_written=kill", stage.cluster.shards["s1"].nodes[0])
    name = stage.ctl.ok("backup")["name"]
    eventually(lambda: not dying.is_running, 20)
    chosen = stage.operation(name=name)["result"]["last_write"]
    done = stage.operation(name=name)["parts"][1]
    assert done["replset"] == "rs-a"
    dying.start()
    ended = stage.ended(LONG_S, name=name)
    assert ended["state"] == "done", ended["error"]
    assert ended["result"]["last_write"] == chosen
    assert [part["attempts"] for part in ended["parts"]] == [1, 1, 2]
