"""`ctl oplog-replay` over a sharded cluster: spans one after the other, onto a restored backup."""

from __future__ import annotations

from typing import Any

import pytest
from bson import MaxKey

from tests.cluster.stage import Stage
from tests.support.cluster_image import misrouted
from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.sharded_scene import SAME, Seen, furnish, wait_covered
from tests.support.transfers import (
    ACCOUNTS,
    DATABASE,
    Moment,
    Transfers,
    check_books,
    check_moment,
)

pytestmark = pytest.mark.timeout(240)

LONG_S = 120.0
BOOKS = f"{DATABASE}.{ACCOUNTS}"


def test_spans_are_replayed_on_all_shards_or_refused_by_name(stage: Stage) -> None:
    """Two-phase transfers run all the while, so that the spans begin and end amidst of some. What
    routing tables would have to change for, is refused."""
    cluster, ctl = stage.cluster, stage.ctl
    ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanMin=0.03")
    furnish(cluster)
    transfers = Transfers(cluster, accounts=10, threads=3)
    transfers.create()
    with transfers:
        transfers.wait_for(5)
        base = ctl.ok("backup", "--wait", within_s=LONG_S)
        transfers.wait_for(15)
        _change(cluster)
        transfers.wait_for(15)
        with transfers.quiesced():
            quiet = _now(cluster)
            seen = Seen(cluster, SAME)
            counted = _plain(cluster)
    cluster.create_database("late", "s0")
    cluster.client_of("s0")["late"]["c"].insert_many([{"_id": n} for n in range(10)])
    created = _now(cluster)
    chunk = next(one for one in cluster.chunks(BOOKS) if one["shard"] == "s1")
    cluster.move_range(BOOKS, "s0", chunk["min"], chunk["max"])
    moved = _now(cluster)
    cluster.client_of("s1")["shop"]["plain"].insert_one({"_id": "written"})
    written = _now(cluster)
    cluster.drop_collection("shop.gone")
    dropped = _now(cluster)
    # Something on each set: slicers let idle ones wait.
    cluster.create_database("end", "s1")
    for name in SAME:
        cluster.client_of(name)["end"]["c"].insert_one({})
    wait_covered(ctl, dropped)
    start = (base["last_write"]["T"], base["last_write"]["I"])
    ends = sorted(one.acknowledged_at for one in transfers.done if one.acknowledged_at)
    within = [at for at in ends if start < at < quiet]
    middle = within[len(within) // 2]
    amidst = (middle[0], max(0, middle[1] - 2)) if middle[1] > 2 else middle

    stage.restore(base["name"], LONG_S)
    plan = ctl.ok("oplog-replay", *_span(start, amidst), "--dry-run", within_s=LONG_S)["plan"]
    assert [one["replset"] for one in plan["replsets"]] == ["cfg", "rs-a", "rs-b"]
    assert all(one["operations"] > 10 for one in plan["replsets"][1:])
    # One part dies on the way, and is gone on with.
    victim = stage.arm("restore.indexes_built=kill", cluster.shards["s1"].nodes[0])
    op_id = ctl.ok("oplog-replay", *_span(start, amidst), "-y")["op_id"]
    eventually(lambda: not victim.is_running, LONG_S)
    victim.start()
    found = stage.ended(LONG_S, _id=op_id)
    assert found["state"] == "done", found["error"]
    _check_books(cluster, transfers, amidst)
    _replay(stage, amidst, quiet)
    _check_books(cluster, transfers, quiet)
    # Ranges that were only cut and joined are not.
    assert Seen(cluster, SAME).hashes == seen.hashes
    assert _plain(cluster) == counted
    assert not misrouted(cluster)

    assert "the database late" in _refused(stage, quiet, created)
    cluster.create_database("late", "s0")
    _replay(stage, quiet, created)
    assert cluster.client_of("s0")["late"]["c"].count_documents({}) == 10
    assert f"a range of {BOOKS} moved (to s0)" in _refused(stage, created, moved)
    assert f"ranges of {BOOKS} belong to other shards here" in _refused(stage, moved, written)
    cluster.move_range(BOOKS, "s0", chunk["min"], chunk["max"])
    _replay(stage, moved, written)
    assert cluster.client_of("s1")["shop"]["plain"].find_one({"_id": "written"}) is not None
    assert "the sharded collection shop.gone was dropped" in _refused(stage, written, dropped)
    assert cluster.client_of("s1")["shop"]["gone"].count_documents({}) == 50


def _change(cluster: ShardedCluster) -> None:
    """What each shard does for itself, and ranges cut and joined."""
    shop = cluster.client_of("s1")["shop"]
    shop["made"].insert_many([{"_id": n} for n in range(30)])
    shop["made"].rename("renamed")
    shop["plain"].delete_many({"_id": {"$lt": 20}})
    shop["refined"].update_many({}, {"$inc": {"j": 1}})
    shop["refined"].update_one({"k": 3}, {"$set": {"k": 1000}})
    shop["refined"].drop_index("k_1_j_1")
    for name in SAME:
        cluster.client_of(name)[DATABASE][ACCOUNTS].create_index("balance")
    cluster.split("shop.refined", {"k": 10}, {"k": 20})
    cluster.merge("shop.refined", {"k": 10}, {"k": MaxKey()})


def _check_books(cluster: ShardedCluster, transfers: Transfers, at: Moment) -> None:
    present = check_books(cluster.client_of(name) for name in SAME)
    check_moment(present, transfers.done, at)


def _plain(cluster: ShardedCluster) -> list[tuple[str, Any]]:
    shop = cluster.client_of("s1")["shop"]
    return [(name, shop[name].count_documents({})) for name in ("plain", "renamed", "refined")]


def _now(cluster: ShardedCluster) -> Moment:
    """A moment that no replica set is behind, so that what comes next comes after it everywhere."""
    clients = [cluster.client_of(name) for name in ("config", *SAME)]
    times = [client.admin.command("ping")["$clusterTime"] for client in clients]
    newest = max(times, key=lambda one: one["clusterTime"])
    for client in clients:
        with client.start_session() as session:
            session.advance_cluster_time(newest)
            client.admin.command("ping", session=session)
    return newest["clusterTime"].time, newest["clusterTime"].inc


def _span(start: Moment, end: Moment) -> tuple[str, ...]:
    return ("--start", f"{start[0]},{start[1]}", "--end", f"{end[0]},{end[1]}")


def _replay(stage: Stage, start: Moment, end: Moment) -> None:
    stage.ctl.ok("oplog-replay", *_span(start, end), "-y", "--wait", within_s=LONG_S)


def _refused(stage: Stage, start: Moment, end: Moment) -> str:
    return stage.ctl.fails(3, "oplog-replay", *_span(start, end), "-y", "--wait", within_s=LONG_S)
