"""A shard that does not know yet whether a collection is sharded, as after it has become primary:
what a restore does to it is done all the same. And what it knows of routing can be made new."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import bson
import pytest
from bson import Binary, ObjectId, Timestamp

from agent.clock import SystemClock
from agent.errors import NodeUnavailable
from agent.mongo.apply import looking
from agent.mongo.apply.building import build
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.inserting import insert
from agent.mongo.apply.looking import show_collection, show_database
from agent.mongo.apply.operations import apply_commands, apply_writes
from agent.mongo.apply.sharding import remove
from agent.mongo.apply.structure import change, drop, drop_index, rename
from agent.mongo.node import Node
from tests.support.mongod import ShardedCluster
from tests.support.restoring import open_node


def raw(*documents: dict[str, Any]) -> list[RawDocument]:
    return [RawDocument(bson.encode(document)) for document in documents]


async def test_shard_that_has_just_started_takes_what_a_restore_does(
    sharded: ShardedCluster,
) -> None:
    sharded.create_database("app")
    shop = sharded.client_of("s0")["app"]
    names = ("loaded", "built", "changed", "written", "removed", "stripped", "moved", "dropped")
    for name in names:
        shop[name].insert_one({"_id": 0, "n": 0})
        shop[name].create_index("n", name="by_n")
    (row,) = shop.list_collections(filter={"name": "dropped"})
    uuid = bytes(row["info"]["uuid"])
    (node_process,) = sharded.shards["s0"].nodes
    node_process.kill()
    node_process.start()
    sharded.shards["s0"].wait_healthy()
    node = await open_node(sharded.shards["s0"])
    try:
        await insert(node, "app.loaded", raw({"_id": 1}, {"_id": 2}, {"_id": 3}))
        spec = {"v": 2, "key": {"m": 1}, "name": "by_m"}
        await build(node, "app.built", [spec], is_collated=False, commit_quorum=1)
        await change(node, "app.changed", {"validationLevel": "off"})
        await apply_writes(
            node,
            raw(
                {"op": "i", "ns": "app.written", "o": {"_id": 1}},
                {"op": "d", "ns": "app.written", "o": {"_id": 0}},
            ),
            is_lenient=True,
        )
        assert await remove(node, "app.removed", {"_id": 0}) == 1
        await drop_index(node, "app.stripped", "by_n")
        await rename(node, "app.moved", "app.named", bytes(16), None)
        await drop(node, "app.dropped", uuid)
        await apply_commands(
            node,
            [
                {
                    "op": "c",
                    "ns": "app.$cmd",
                    "ui": Binary(uuid4().bytes, 4),
                    "o": {"create": "made", "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}},
                }
            ],
        )
    finally:
        await node.aclose()
    assert shop["loaded"].count_documents({}) == 4
    assert "by_m" in shop["built"].index_information()
    assert [row["_id"] for row in shop["written"].find()] == [1]
    assert "by_n" not in shop["stripped"].index_information()
    found = set(shop.list_collection_names())
    assert found >= {"named", "made"}
    assert not found & {"moved", "dropped"}


async def test_shard_is_made_to_see_what_changed_behind_its_back(sharded: ShardedCluster) -> None:
    """The tables are changed as a restore changes them: a collection becomes another incarnation,
    one is sharded no more, a database is gone."""
    sharded.create_database("app")
    sharded.create_database("gone")
    for name in ("again", "plain"):
        sharded.shard_collection(f"app.{name}", {"k": 1})
    client = sharded.config.client()
    stamp: Timestamp = client.admin.command("ping")["$clusterTime"]["clusterTime"]
    config = client["config"]
    new = {"timestamp": stamp, "lastmodEpoch": ObjectId()}
    config["collections"].update_one({"_id": "app.again"}, {"$set": new})
    row = config["collections"].find_one_and_delete({"_id": "app.plain"})
    assert row is not None
    config["chunks"].delete_many({"uuid": row["uuid"]})
    config["databases"].delete_one({"_id": "gone"})
    primary = config["databases"].find_one({"_id": "app"})
    assert primary is not None
    node, clock = await open_node(sharded.shards["s0"]), SystemClock()
    try:
        await show_collection(node, clock, "app.again", stamp)
        await show_collection(node, clock, "app.plain", None)
        await show_database(node, clock, "gone", None)
        await show_database(node, clock, "app", primary["version"]["timestamp"])
    finally:
        await node.aclose()
    admin = sharded.client_of("s0").admin
    assert not admin.command({"getShardVersion": "app.plain"})["global"].time


async def test_tables_that_a_shard_never_sees_are_named(
    sharded: ShardedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "WITHIN_S", 0.3)
    sharded.create_database("app")
    sharded.shard_collection("app.c", {"k": 1})
    node: Node = await open_node(sharded.shards["s0"])
    try:
        with pytest.raises(NodeUnavailable, match=r"does not see the routing of .* app\.c "):
            await show_collection(node, SystemClock(), "app.c", Timestamp(7, 7))
    finally:
        await node.aclose()
