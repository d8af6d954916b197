"""Restores of a sharded cluster: one moment of all shards, whatever went on at that moment."""

from __future__ import annotations

import os
import random
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pytest

from tests.cluster.stage import Stage
from tests.support.agents import Agents
from tests.support.cluster_image import misrouted, users_collections
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.mongod.sharded import ClusterOptions
from tests.support.sharded_scene import SAME, Seen, furnish, make_series, measure, wait_covered
from tests.support.transfers import (
    DATABASE,
    Moment,
    Transfers,
    check_books,
    check_moment,
    moment_now,
)

pytestmark = pytest.mark.timeout(300)

MOMENTS = int(os.environ.get("TIDELOG_TEST_MOMENTS", "3"))
"""How many random moments are restored to."""
LONG_S = 180.0
WEATHER, CLIMATE = "system.buckets.weather", "system.buckets.climate"
"""Of time series a shard by itself shows the buckets: one a measurement here."""


@pytest.fixture
def agents(stage: Stage) -> Agents:
    """One beside each node."""
    return stage.agents


@pytest.fixture
def ctl(stage: Stage) -> Ctl:
    """Knows a member of a shard only."""
    return stage.ctl


def test_moments_of_a_busy_cluster(
    sharded: ShardedCluster, agents: Agents, ctl: Ctl, tmp_path: Path
) -> None:
    """Transfers run while it is backed up and archived, collections (time series, too) come, go,
    change their names, keys and shards, and orphans lie about. Then to random moments, and into
    another cluster that has other names and one shard more."""
    ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanMin=0.03")
    furnish(sharded)
    sharded.create_database("moving", "s0")
    sharded.client_of("s0")["moving"]["c"].insert_many([{"_id": n} for n in range(20)])
    transfers = Transfers(sharded, accounts=10, threads=3, pause_s=0.01)
    transfers.create()
    with transfers:
        transfers.wait_for(10)
        backup = ctl.ok("backup", "--wait", within_s=LONG_S)
        transfers.wait_for(20)
        _rearrange(sharded)
        before_move = _move_primary(sharded)
        transfers.wait_for(10)
        with transfers.quiesced():
            moment = max(moment_now(sharded.client_of(name)) for name in ("config", "s0", "s1"))
            seen = Seen(sharded, SAME)
            assert sharded.client_of("s0")["late"]["d"].count_documents({}) == 100
        sharded.hold_range_deletions("s0", on=False)
        transfers.wait_for(30)
        sharded.drop_collection("late.d")
    base = (backup["last_write"]["T"], backup["last_write"]["I"])
    last = max(one.acknowledged_at for one in transfers.done if one.acknowledged_at)
    wait_covered(ctl, last)
    ends = {one.acknowledged_at for one in transfers.done if one.acknowledged_at}
    wanted = [at for at in sorted(ends) if base < at < last]
    rng = random.Random(1)
    for at in rng.sample(wanted, min(MOMENTS, len(wanted))):
        # Not only where something was acknowledged, but amidst of it.
        chosen = (at[0], max(0, at[1] - rng.randrange(4)))
        _restore(ctl, backup["name"], chosen if chosen > base else at)
        clients = [sharded.client_of(name) for name in sharded.shards]
        check_moment(check_books(clients), transfers.done, chosen if chosen > base else at)
    _restore(ctl, backup["name"], before_move)
    assert not misrouted(sharded)
    assert _counts(sharded, SAME, "moving", "c") == [20, 0]
    report = _restore(ctl, backup["name"], moment)
    _check(sharded, SAME, seen, transfers, moment)
    warnings = [text for part in report["replsets"] for text in part["warnings"]]
    assert any(text.startswith("20 orphaned documents") for text in warnings), warnings
    _select(sharded, ctl, backup["name"], moment)
    _rename(sharded, ctl, backup["name"], moment)
    agents.stop()
    with (
        ShardedCluster(ClusterOptions(shards=3, name="b-")) as other,
        Agents(*other.sets, lead=other.config),
    ):
        _elsewhere(other, tmp_path / "repository", backup["name"], moment)
        _check(other, {"s0": "s1", "s1": "s0"}, seen, transfers, moment)
        assert "junk" not in other.client_of("s2").list_database_names()


def test_moments_amidst_changes_of_structure_are_as_if_they_were_done(
    sharded: ShardedCluster, agents: Agents, ctl: Ctl
) -> None:
    """Renamed on one shard and not yet on the other; in no routing table; dropped from the table
    and still there; a database half dropped."""
    ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanMin=0.03")
    sharded.create_database("app", "s0")
    for name in ("one", "two", "three"):
        sharded.shard_collection(f"app.{name}", {"k": 1})
        sharded.spread(f"app.{name}", "k", [0])
        for shard, side in (("s0", -1), ("s1", 1)):
            rows = [{"_id": side * n, "k": side * n} for n in range(1, 11)]
            sharded.client_of(shard)["app"][name].insert_many(rows)
    backup = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    sharded.rename_collection("app.one", "app.two", drop_target=True)
    sharded.drop_collection("app.three")
    sharded.drop_database("app")
    tables = {"ns": "config.collections", "op": "d"}
    renamed = min(_logged(sharded, name, {"o.renameCollection": "app.one"}) for name in SAME)
    untabled = _logged(sharded, "config", {**tables, "o._id": "app.one"})
    dropped = _logged(sharded, "config", {**tables, "o._id": "app.three"})
    half = _logged(sharded, "config", {**tables, "o._id": "app.two"})
    wait_covered(ctl, max(moment_now(sharded.client_of(name)) for name in SAME))
    for moment, left in (
        (renamed, {"app.two", "app.three"}),
        (untabled, {"app.two", "app.three"}),
        (dropped, {"app.two"}),
        (half, set()),
    ):
        report = _restore(ctl, backup, moment)
        assert not misrouted(sharded)
        tabled = {row["_id"]: row for row in users_collections(sharded)}
        assert set(tabled) == left
        for name in left:
            assert _counts(sharded, SAME, *name.split(".")) == [10, 10], (name, moment)
            assert tabled[name].get("allowMigrations", True)
        warnings = [text for part in report["replsets"] for text in part["warnings"]]
        assert any("it was finished, as the cluster would have" in text for text in warnings)
        for name in SAME:
            there = set(sharded.client_of(name)["app"].list_collection_names())
            assert there == {one.partition(".")[2] for one in left}
    error = ctl.fails(
        3,
        "restore",
        *("--time", f"{renamed[0]},{renamed[1]}", "--base-snapshot", backup),
        *("--ns", "app.two", "-y", "--wait"),
        within_s=LONG_S,
    )
    assert "app.one was being renamed to app.two" in error


def _logged(cluster: ShardedCluster, shard: str, query: dict[str, Any]) -> Moment:
    """The newest entry of its oplog that matches."""
    oplog = cluster.client_of(shard)["local"]["oplog.rs"]
    (entry,) = oplog.find(query).sort("$natural", -1).limit(1)
    return entry["ts"].time, entry["ts"].inc


def test_nothing_is_touched_unless_all_shards_can_be_restored(
    sharded: ShardedCluster, agents: Agents, ctl: Ctl, tmp_path: Path
) -> None:
    furnish(sharded)
    name = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    chunk = next((tmp_path / "repository").glob("**/chunks/rs-b/bundles/*"))
    chunk.write_bytes(chunk.read_bytes()[:-1])
    sharded.client_of("s0")["shop"]["more"].insert_one({"_id": "later"})
    rows = list(sharded.config.client()["config"]["collections"].find())
    error = ctl.fails(1, "restore", name, "-y", "--wait", within_s=LONG_S)
    assert "chunks/rs-b" in error
    assert sharded.client_of("s0")["shop"]["more"].find_one() == {"_id": "later"}
    assert sharded.client_of("s1")["shop"]["plain"].count_documents({}) == 50
    assert list(sharded.config.client()["config"]["collections"].find()) == rows
    agents.of(sharded.shards["s0"].nodes[0]).terminate()
    error = ctl.fails(3, "restore", name, "-y", "--wait", within_s=LONG_S)
    assert "no agent serves the replica set rs-a" in error


def test_the_new_routing_is_in_place_only_when_the_last_shard_is_ready_for_it(
    stage: Stage,
) -> None:
    """One that was late took what it had yet to create for sharded, or waited a minute to see that
    it was not."""
    cluster = stage.cluster
    furnish(cluster)
    cluster.create_database(DATABASE)
    name, seen = stage.backup(LONG_S), Seen(cluster, SAME)
    stage.arm("restore.dropped=sleep:2", cluster.shards["s1"].nodes[0])
    stage.restore(name, 30.0)
    assert _done_at(stage, "cfg", "route") > _done_at(stage, "rs-b", "build indexes")
    now = Seen(cluster, SAME)
    assert (now.hashes, now.routing) == (seen.hashes, seen.routing)


def _done_at(stage: Stage, replset: str, name: str) -> datetime:
    """When a part of the restore was done with one of its stages."""
    query = {"event": "restore.stage_done", "replset": replset, "fields.stage": name}
    found = eventually(lambda: stage.admin.tidelogEvents.find_one(query))
    assert found is not None
    return cast(datetime, found["at"])


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("restore.routing_cleared=kill@2", "config"),
        ("restore.orphans_removed=kill", "s1"),
    ],
)
def test_killed_part_is_gone_on_with(
    sharded: ShardedCluster, agents: Agents, ctl: Ctl, fault: str, where: str
) -> None:
    sharded.start_balancer()
    setting = sharded.balancer_setting()
    furnish(sharded)
    sharded.create_database(DATABASE)
    name = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    seen = Seen(sharded, SAME)
    sharded.client_of("s1")["shop"]["plain"].delete_many({})
    sharded.drop_collection("shop.gone")
    replset = sharded.config if where == "config" else sharded.shards[where]
    victim = agents.of(replset.nodes[0])
    victim.kill()
    victim.start(faults=fault)
    victim.wait_announced()
    ctl.ok("restore", name, "-y")
    eventually(lambda: not victim.is_running, 60.0)
    victim.start()
    log = sharded.config.client()["admin"]["tidelogOperations"]

    def over() -> bool:
        found = log.find_one({"kind": "restore"})
        assert found is not None
        return found["state"] in ("done", "failed")

    eventually(over, LONG_S)
    found = log.find_one({"kind": "restore"})
    assert found is not None
    assert found["state"] == "done", found["error"]
    assert not seen.differences(Seen(sharded, SAME))
    eventually(lambda: sharded.balancer_setting() == setting, 20.0)


def _rearrange(cluster: ShardedCluster) -> None:
    """Dropped, created again under another key, refined, renamed; and a range moved, whose donor
    keeps its copies."""
    cluster.drop_collection("shop.gone")
    cluster.drop_collection("shop.again")
    cluster.shard_collection("shop.again", {"j": 1})
    cluster.client_of("s1")["shop"]["again"].insert_many([{"_id": n, "j": n} for n in range(30)])
    cluster.refine_key("shop.refined", {"k": 1, "j": 1})
    cluster.create_database("late", "s0")
    cluster.shard_collection("late.c", {"k": 1})
    cluster.client_of("s0")["late"]["c"].insert_many([{"_id": n, "k": n} for n in range(100)])
    cluster.rename_collection("late.c", "late.d")
    cluster.hold_range_deletions("s0", on=True)
    cluster.move_range("late.d", "s1", {"k": 40}, {"k": 60})
    cluster.client_of("s1")["late"]["d"].insert_one({"_id": "moved", "k": 45})
    measure(cluster, "shop.weather", "s0", 10)
    make_series(cluster, "shop.gone")
    cluster.drop_collection("shop.gone")
    make_series(cluster, "shop.climate")


def _move_primary(cluster: ShardedCluster) -> Moment:
    """Answers a moment at which both shards have what moves."""
    cluster.move_primary("moving", "s1")
    oplog = cluster.config.client()["local"]["oplog.rs"]
    moved = {"ns": "config.databases", "op": "u", "o2._id": "moving"}
    (entry,) = oplog.find({**moved, "o.diff.u.primary": "s1"}).sort("$natural", -1).limit(1)
    return entry["ts"].time, entry["ts"].inc - 1


def _counts(
    cluster: ShardedCluster, names: dict[str, str], database: str, collection: str
) -> list[int]:
    """How many documents each shard has."""
    clients = [cluster.client_of(name) for name in names.values()]
    return [client[database][collection].count_documents({}) for client in clients]


def _restore(ctl: Ctl, backup: str, moment: Moment, *options: str) -> dict[str, Any]:
    wanted = ("--time", f"{moment[0]},{moment[1]}", "--base-snapshot", backup)
    return dict(ctl.ok("restore", *wanted, *options, "-y", "--wait", within_s=LONG_S))


def _check(
    cluster: ShardedCluster,
    names: dict[str, str],
    seen: Seen,
    transfers: Transfers,
    moment: Moment,
) -> None:
    """`names` are those of the shards here, by what they were."""
    present = check_books(cluster.client_of(name) for name in cluster.shards)
    check_moment(present, transfers.done, moment)
    assert not seen.differences(Seen(cluster, names))
    # The donor's orphans of that moment are not there, and nothing that was moved is lost.
    assert not misrouted(cluster)
    assert _counts(cluster, names, "late", "d") == [80, 21]
    assert _counts(cluster, names, "moving", "c") == [0, 20]
    assert _counts(cluster, names, "shop", WEATHER) == [80, 40]
    assert _counts(cluster, names, "shop", CLIMATE) == [40, 40]
    for name in names.values():
        known = cluster.client_of(name).admin.command({"getShardVersion": "late.d"})
        row = cluster.routing("late.d")
        assert row is not None
        assert known["global"].time == 2, (known, row)


def _select(cluster: ShardedCluster, ctl: Ctl, backup: str, moment: Moment) -> None:
    """Two collections come back; the others, and their routing, stay."""
    accounts = cluster.client_of("s0")[DATABASE]["accounts"]
    accounts.update_one({"_id": 0}, {"$set": {"kept": True}})
    before = cluster.routing(f"{DATABASE}.accounts")
    cluster.client_of("s1")["shop"]["plain"].delete_many({})
    cluster.drop_collection("shop.again")
    _restore(ctl, backup, moment, "--ns", "shop.plain,shop.again")
    assert cluster.client_of("s1")["shop"]["plain"].count_documents({}) == 50
    assert cluster.client_of("s1")["shop"]["again"].count_documents({}) == 30
    again = cluster.routing("shop.again")
    assert again is not None
    assert again["key"] == {"j": 1}
    assert [chunk["shard"] for chunk in cluster.chunks("shop.again")] == ["s1"]
    (info,) = cluster.client_of("s1")["shop"].list_collections(filter={"name": "again"})
    assert info["info"]["uuid"] == again["uuid"]
    assert cluster.routing(f"{DATABASE}.accounts") == before
    assert accounts.find_one({"_id": 0, "kept": True}) is not None


def _rename(cluster: ShardedCluster, ctl: Ctl, backup: str, moment: Moment) -> None:
    """Collections beside their originals, sharded as they were, in a database that is not there."""
    before = Seen(cluster, SAME)
    for name in ("again", "weather"):
        wanted = ("--ns-from", f"shop.{name}", "--ns-to", f"copy.{name}")
        _restore(ctl, backup, moment, *wanted)
    after = Seen(cluster, SAME)
    assert not misrouted(cluster)
    assert after.hashes == before.hashes
    assert cluster.database("copy")["primary"] == "s1"
    for name in (WEATHER, "again"):
        assert _counts(cluster, SAME, "copy", name) == _counts(cluster, SAME, "shop", name)
        key, uuid, ranges = before.routing[f"shop.{name}"]
        copied = after.routing[f"copy.{name}"]
        assert (copied[0], copied[2]) == (key, ranges)
        assert copied[1] != uuid
    wanted = ("--ns-from", "shop.plain", "--ns-to", f"{DATABASE}.plain")
    error = ctl.fails(3, "restore", backup, *wanted, "-y", "--wait", within_s=LONG_S)
    assert f"the primary shard of the database {DATABASE} is s0 here and s1 in the backup" in error


def _elsewhere(cluster: ShardedCluster, store: Path, backup: str, moment: Moment) -> None:
    ctl = Ctl(cluster.config.uri())
    ctl.configure_filesystem(store)
    ctl.ok("config", "--force-resync", "--wait", within_s=LONG_S)
    cluster.create_database("junk", "s2")
    cluster.client_of("s2")["junk"]["c"].insert_one({})
    error = ctl.fails(3, "restore", backup, "-y", "--wait", within_s=LONG_S)
    assert "there is no rs-a here" in error
    _restore(ctl, backup, moment, "--replset-remapping", "b-rs-b=rs-a,b-rs-a=rs-b")


def test_a_cluster_amidst_an_upgrade_is_restored(
    sharded: ShardedCluster, agents: Agents, ctl: Ctl
) -> None:
    """With feature compatibility version 5.0 catalogues are listed, and shards tell of versions of
    routing tables in other words."""
    assert all(agent.is_running for agent in agents)
    sharded.create_database("app", "s0")
    sharded.shard_collection("app.a", {"k": 1})
    sharded.spread("app.a", "k", [10])
    for shard, first in (("s0", 0), ("s1", 10)):
        sharded.client_of(shard).app.a.insert_many([{"k": first + n} for n in range(5)])
    try:
        for one in sharded.sets:
            one.client().admin.command({"setFeatureCompatibilityVersion": "5.0"})
        backup = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
        sharded.drop_collection("app.a")
        for chosen in ((), ("--ns", "app.a")):
            ctl.ok("restore", backup, *chosen, "-y", "--wait", within_s=LONG_S)
            assert _counts(sharded, SAME, "app", "a") == [5, 5]
            assert not misrouted(sharded)
    finally:
        for one in sharded.sets:
            one.client().admin.command({"setFeatureCompatibilityVersion": "6.0"})
