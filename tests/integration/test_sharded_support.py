"""The sharded cluster of the tests is a real one: routing, moved ranges, orphans, two phases."""

from __future__ import annotations

import pytest
from bson import MaxKey, MinKey

from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.mongod.crossing import CrossShardSession
from tests.support.transfers import Transfers, check_books, check_moment


def test_moved_range_leaves_orphans_until_the_donor_cleans(sharded: ShardedCluster) -> None:
    sharded.create_database("app")
    sharded.shard_collection("app.events", {"k": 1})
    here, there = (sharded.client_of(shard)["app"]["events"] for shard in ("s0", "s1"))
    here.insert_many([{"_id": n, "k": n} for n in range(100)])
    sharded.hold_range_deletions("s0", on=True)
    sharded.move_range("app.events", "s1", {"k": 50}, {"k": 80})
    assert [(one["min"]["k"], one["shard"]) for one in sharded.chunks("app.events")] == [
        (MinKey(), "s0"),
        (50, "s1"),
        (80, "s0"),
    ]
    assert there.count_documents({}) == 30
    assert here.count_documents({}) == 100
    pending = list(sharded.client_of("s0")["config"]["rangeDeletions"].find())
    assert [one["range"] for one in pending] == [{"min": {"k": 50}, "max": {"k": 80}}]
    sharded.hold_range_deletions("s0", on=False)
    eventually(lambda: here.count_documents({}) == 70)


def test_ranges_are_dealt_to_the_shards_in_turn(sharded: ShardedCluster) -> None:
    sharded.create_database("app", "s1")
    sharded.shard_collection("app.spread", {"k": 1})
    sharded.spread("app.spread", "k", [10, 20, 30])
    found = [(one["min"]["k"], one["shard"]) for one in sharded.chunks("app.spread")]
    assert found == [(MinKey(), "s0"), (10, "s1"), (20, "s0"), (30, "s1")]
    assert sharded.chunks("app.spread")[-1]["max"] == {"k": MaxKey()}


def test_transaction_over_two_shards_is_prepared_and_committed_on_both(
    sharded: ShardedCluster,
) -> None:
    sharded.create_database("bank")
    sharded.shard_collection("bank.accounts", {"_id": 1})
    sharded.spread("bank.accounts", "_id", [10])
    for shard, one in (("s0", 1), ("s1", 11)):
        sharded.client_of(shard)["bank"]["accounts"].insert_one({"_id": one, "sum": 0})
    with CrossShardSession(sharded) as session:
        for delta, end in ((5, session.commit), (7, session.abort)):
            session.begin()
            for shard, one, sign in (("s0", 1, -1), ("s1", 11, 1)):
                update = {"q": {"_id": one}, "u": {"$inc": {"sum": sign * delta}}}
                session.run(shard, "bank", {"update": "accounts", "updates": [update]})
            end()
        lsid = session.lsid["id"]
    for shard, one, total in (("s0", 1, -5), ("s1", 11, 5)):
        client = sharded.client_of(shard)
        assert client["bank"]["accounts"].find_one() == {"_id": one, "sum": total}
        entries = list(client["local"]["oplog.rs"].find({"lsid.id": lsid}))
        commands = [next(iter(entry["o"])) for entry in entries]
        assert commands[:2] == ["applyOps", "commitTransaction"], shard
        assert entries[0]["o"]["prepare"] is True


def test_books_of_transfers_balance_while_money_moves(sharded: ShardedCluster) -> None:
    transfers = Transfers(sharded)
    transfers.create()
    clients = [sharded.client_of(shard) for shard in sharded.shards]
    with transfers:
        transfers.wait_for(20)
        with transfers.quiesced():
            present = check_books(clients)
    assert len(present) >= 20
    present = check_books(clients)
    check_moment(present, transfers.done, (2**32 - 1, 0))
    assert {one.id for one in transfers.done if one.acknowledged_at} <= present
    clients[1]["bank"]["entries"].delete_one({"transfer": min(present)})
    with pytest.raises(AssertionError, match="has 1 entries"):
        check_books(clients)


def test_clean_forgets_databases_ranges_and_what_ddl_left(sharded: ShardedCluster) -> None:
    sharded.create_database("app")
    sharded.shard_collection("app.hashed", {"k": "hashed"})
    assert {one["shard"] for one in sharded.chunks("app.hashed")} == {"s0", "s1"}
    sharded.shard_collection(
        "app.weather", {"m": 1}, timeseries={"timeField": "t", "metaField": "m"}
    )
    assert sharded.routing("app.system.buckets.weather") is not None
    sharded.shard_collection("app.old", {"k": 1})
    sharded.rename_collection("app.old", "app.new")
    assert sharded.routing("app.old") is None
    sharded.client_of("s1")["stray"]["c"].insert_one({})
    sharded.clean()
    config = sharded.config.client()["config"]
    for name in ("databases", "collections", "chunks"):
        assert config[name].count_documents({}) == 0, name
    for shard in sharded.shards:
        assert set(sharded.client_of(shard).list_database_names()) <= {"admin", "config", "local"}
