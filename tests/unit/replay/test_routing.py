"""Routing documents as the target gets them: another incarnation, other names where asked for."""

from __future__ import annotations

import pytest
from bson import Binary, ObjectId, Timestamp

from agent.errors import RestoreFailed
from agent.replay.routing import Routing
from agent.replay.scope import Renaming, Scope
from agent.wire.namespaces import Selection

STAMP = Timestamp(100, 1)
UUID = Binary(bytes(range(16)), 4)
ROW = {
    "_id": "shop.orders",
    "uuid": UUID,
    "timestamp": Timestamp(5, 5),
    "lastmodEpoch": ObjectId(),
    "key": {"k": 1},
}
CHUNK = {
    "_id": ObjectId(),
    "uuid": UUID,
    "min": {"k": 1},
    "max": {"k": 2},
    "shard": "s0",
    "onCurrentShardSince": Timestamp(5, 5),
    "history": [{"validAfter": Timestamp(5, 5), "shard": "s0"}],
}
DATABASE = {"_id": "shop", "primary": "s1", "version": {"timestamp": Timestamp(5, 5), "lastMod": 3}}


def routing(scope: Scope | None = None) -> Routing:
    return Routing(scope or Scope(), {"s0": "east", "s1": "west"}, STAMP, "op")


def renaming(source: str, target: str) -> Routing:
    chosen = Selection((source,), (), users_and_roles=False, routing=True)
    return routing(Scope(chosen, renaming=Renaming.parse(source, target), fresh_seed="op"))


def test_full_restore_keeps_names_uuids_and_ranges_and_stamps_all_anew() -> None:
    found = routing()
    row, chunk, database = found.collection(ROW), found.chunk(CHUNK), found.database(DATABASE)
    assert (row["_id"], row["uuid"], row["key"]) == ("shop.orders", UUID, {"k": 1})
    assert row["timestamp"] == STAMP
    assert row["lastmodEpoch"] != ROW["lastmodEpoch"]
    assert (chunk["_id"], chunk["min"], chunk["shard"]) == (CHUNK["_id"], {"k": 1}, "east")
    assert chunk["history"] == [{"validAfter": STAMP, "shard": "east"}]
    assert (database["_id"], database["primary"]) == ("shop", "west")
    assert database["version"]["timestamp"] == STAMP
    assert found.collection(ROW) == row, "a second worker must write the same"


def test_renamed_collection_has_its_ranges_beside_those_of_the_original() -> None:
    found = renaming("shop.orders", "old.orders2")
    row, chunk = found.collection(ROW), found.chunk(CHUNK)
    assert row["_id"] == "old.orders2"
    assert row["uuid"] == chunk["uuid"]
    assert row["uuid"] != UUID
    assert chunk["_id"] != CHUNK["_id"]
    assert found.database(DATABASE)["_id"] == "old"
    tag = {"_id": ObjectId(), "ns": "shop.orders", "min": {"k": 1}, "max": {"k": 2}, "tag": "eu"}
    moved = found.tag(tag)
    assert (moved["ns"], moved["tag"], moved["min"]) == ("old.orders2", "eu", {"k": 1})
    assert moved["_id"] != tag["_id"]


def test_renamed_database_takes_time_series_along_and_nothing_else() -> None:
    found = renaming("shop.*", "copy.*")
    assert found.here("shop.system.buckets.weather") == "copy.system.buckets.weather"
    assert found.here("shop") == "copy"
    assert not found.wants("bank.orders")
    assert not found.wants("bank")
    assert found.tag({"_id": 1, "ns": "shop.x"})["ns"] == "copy.x"


@pytest.mark.parametrize("name", ["config.system.sessions", "config", "admin"])
def test_what_the_cluster_shards_for_itself_is_not_taken(name: str) -> None:
    assert not routing().wants(name)


def test_shard_that_the_backup_does_not_hold_is_named() -> None:
    with pytest.raises(RestoreFailed, match="name the shard s9"):
        routing().chunk({**CHUNK, "shard": "s9"})
