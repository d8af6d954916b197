"""Selective restores touch what was named, as it was named at the moment restored to."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from agent.mongo.node import Node
from agent.storage.memory import MemoryStorage
from agent.wire.namespaces import Selection
from tests.support.compare import Fingerprint, diff, fingerprint
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup

Described = dict[str, Any]


@dataclass
class World:
    """A source whose names change while it is backed up, spoilt after that."""

    replset: ReplicaSet
    node: Node
    storage: MemoryStorage
    source: Fingerprint
    spoilt: Fingerprint

    async def restore(self, **spec: Any) -> dict[str, Any]:
        backup = await take_backup_of(self)
        return await RestoreRun.of(self.node, self.storage, backup, **spec).work()

    def now(self) -> Fingerprint:
        return fingerprint(self.replset.client())

    def check(self, *restored: str) -> None:
        """These are as at the source, everything else is as it was spoilt."""
        found, expected = self.now(), self._expected(restored)
        assert not diff(expected, found, principals=False)

    def _expected(self, restored: tuple[str, ...]) -> Fingerprint:
        databases: dict[str, Described] = {}
        for name in {*self.source["databases"], *self.spoilt["databases"]}:
            before = self.source["databases"].get(name, {})
            after = self.spoilt["databases"].get(name, {})
            databases[name] = {c: d for c, d in after.items() if f"{name}.{c}" not in restored}
            databases[name] |= {c: d for c, d in before.items() if f"{name}.{c}" in restored}
        return {**self.source, "databases": databases}


_BACKUPS: dict[int, Any] = {}


async def take_backup_of(world: World) -> Any:
    return _BACKUPS[id(world.storage)]


def fill(client: Any) -> None:
    db = client["db"]
    db["kept"].insert_many([{"_id": n} for n in range(50)])
    db["kept"].create_index([("a", 1)], name="a", sparse=True)
    db["staging"].insert_many([{"_id": n, "new": True} for n in range(30)])
    db["live"].insert_many([{"_id": n} for n in range(20)])
    db["moved"].insert_one({"_id": 1})
    db.create_collection("view", viewOn="kept", pipeline=[{"$match": {"_id": {"$lt": 5}}}])
    db.create_collection("other view", viewOn="live")
    measure(db, "series", 3)
    client["more"]["x.y"].insert_many([{"_id": n} for n in range(5)])
    client["more"].create_collection("v", viewOn="x.y")


def measure(db: Any, name: str, count: int) -> None:
    if name not in db.list_collection_names():
        db.create_collection(name, timeseries={"timeField": "t", "metaField": "m"})
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    rows = [{"t": start + datetime.timedelta(minutes=n), "m": n % 2} for n in range(count)]
    db[name].insert_many(rows)


def write(client: Any) -> None:
    """While the backup runs."""
    db = client["db"]
    db["kept"].update_many({}, {"$set": {"a": 1}})
    db["staging"].insert_one({"_id": 99})
    db["staging"].rename("live", dropTarget=True)
    db["live"].insert_one({"_id": 100})
    db["moved"].rename("gone elsewhere")
    measure(db, "series", 4)
    db["new"].insert_one({"_id": 1})


def write_a_little(client: Any) -> None:
    client["db"]["live"].insert_one({})


def spoil(client: Any) -> None:
    db = client["db"]
    db["kept"].drop()
    db["kept"].insert_one({"spoilt": True})
    db["live"].delete_many({})
    db["view"].drop()
    db["series"].drop()
    db["bystander"].insert_one({"_id": "stays"})
    db.create_collection("bystander view", viewOn="bystander")
    client["more"]["x.y"].update_many({}, {"$set": {"spoilt": True}})
    client["more"]["extra"].insert_one({"_id": 1})


@pytest.fixture
async def world(one_node: ReplicaSet) -> AsyncIterator[World]:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    backup = await take_backup(node, storage, before_end=lambda: asyncio.to_thread(write, client))
    _BACKUPS[id(storage)] = backup
    source = fingerprint(client)
    spoil(client)
    yield World(one_node, node, storage, source, fingerprint(client))
    del _BACKUPS[id(storage)]
    await node.aclose()


async def test_one_collection(world: World) -> None:
    await world.restore(ns=("db.kept",))
    world.check("db.kept")


async def test_a_collection_that_got_its_name_in_the_span(world: World) -> None:
    await world.restore(ns=("db.live",))
    world.check("db.live")


async def test_a_view_and_a_time_series(world: World) -> None:
    await world.restore(ns=("db.view", "db.series"))
    found = world.now()["databases"]["db"]
    wanted = world.source["databases"]["db"]
    for name in ("view", "series", "system.buckets.series"):
        assert not diff(
            {"databases": {"db": {name: wanted[name]}}},
            {"databases": {"db": {name: found[name]}}},
            principals=False,
        )
    names = {d["_id"] for d in world.replset.client()["db"]["system.views"].find()}
    assert names == {"db.view", "db.series", "db.other view", "db.bystander view"}


async def test_a_whole_database_loses_what_the_backup_has_not(world: World) -> None:
    await world.restore(ns=("more.*",))
    found = world.now()["databases"]
    assert not diff(
        {"databases": {"more": world.source["databases"]["more"]}},
        {"databases": {"more": found["more"]}},
        principals=False,
    )
    assert found["db"] == world.spoilt["databases"]["db"]


async def test_all_but_a_database(world: World) -> None:
    await world.restore(exclude_ns=("more.*",))
    found = world.now()["databases"]
    assert found["more"] == world.spoilt["databases"]["more"]
    assert not diff(
        {"databases": {"db": world.source["databases"]["db"]}},
        {"databases": {"db": found["db"]}},
        principals=False,
    )


async def test_beside_the_original(world: World) -> None:
    await world.restore(ns_from="db.live", ns_to="copy.of live")
    client = world.replset.client()
    assert client["copy"]["of live"].count_documents({}) == 32
    found = world.now()
    assert list(found["databases"].pop("copy")) == ["of live"]
    assert not diff(world.spoilt, found, principals=False)
    original = client["db"].command("listCollections", filter={"name": "live"})
    copy = client["copy"].command("listCollections", filter={"name": "of live"})
    uuids = [r["cursor"]["firstBatch"][0]["info"]["uuid"] for r in (original, copy)]
    assert uuids[0] != uuids[1]


async def test_a_time_series_beside_the_original(world: World) -> None:
    await world.restore(ns_from="db.series", ns_to="db.series 2")
    client = world.replset.client()
    assert client["db"]["series 2"].count_documents({}) == 7
    assert "series" not in client["db"].list_collection_names()


async def test_a_database_beside_the_original(world: World) -> None:
    await world.restore(ns_from="more.*", ns_to="copy.*")
    found = world.now()["databases"]
    assert found["more"] == world.spoilt["databases"]["more"]
    assert sorted(found["copy"]) == ["system.views", "v", "x.y"]
    copied, wanted = found["copy"]["x.y"], world.source["databases"]["more"]["x.y"]
    assert copied["hash"] == wanted["hash"]
    assert world.replset.client()["copy"]["v"].count_documents({}) == 5


async def test_a_uuid_that_lives_under_another_name_stays_there(world: World) -> None:
    client = world.replset.client()
    client["db"]["live"].rename("archive")
    world.spoilt = world.now()
    await world.restore(ns=("db.live",))
    found = world.now()["databases"]["db"]
    assert found["archive"] == world.spoilt["databases"]["db"]["archive"]
    assert found["live"]["hash"] == world.source["databases"]["db"]["live"]["hash"]


async def test_all_of_a_selective_backup(one_node: ReplicaSet) -> None:
    client = one_node.client()
    fill(client)
    node, storage = await open_node(one_node), await MemoryStorage.open()
    try:
        chosen = Selection(("db.live", "more.*"), users_and_roles=False)
        backup = await take_backup(
            node,
            storage,
            selection=chosen,
            before_end=lambda: asyncio.to_thread(write_a_little, client),
        )
        source = fingerprint(client)
        spoil(client)
        spoilt = fingerprint(client)
        await RestoreRun.of(node, storage, backup).work()
    finally:
        await node.aclose()
    found = fingerprint(client)["databases"]
    assert found["db"]["live"] == source["databases"]["db"]["live"]
    assert found["db"]["kept"] == spoilt["databases"]["db"]["kept"]
    assert found["more"] == source["databases"]["more"]
