"""Users and roles become the backup's, but for what the agent itself lives on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pymongo import MongoClient

from agent.mongo.node import Node
from agent.storage.memory import MemoryStorage
from tests.support.mongod import Auth, ReplicaSet, SetOptions
from tests.support.restoring import RestoreRun, take_backup

Client = MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def guarded() -> Iterator[ReplicaSet]:
    with ReplicaSet(SetOptions(name="guarded", auth=Auth())) as replset:
        yield replset


@dataclass
class World:
    replset: ReplicaSet
    client: Client
    node: Node
    storage: MemoryStorage

    def users(self) -> set[str]:
        return {one["_id"] for one in self.client.admin["system.users"].find()}

    def roles(self) -> set[str]:
        return {one["_id"] for one in self.client.admin["system.roles"].find()}


@pytest.fixture
async def world(guarded: ReplicaSet) -> AsyncIterator[World]:
    client = guarded.client()
    for database in ("shop", "crm"):
        client.drop_database(database)
        client[database].command("dropAllUsersFromDatabase")
        client[database].command("dropAllRolesFromDatabase")
    client.admin.command("dropAllRolesFromDatabase")
    root = guarded.options.auth
    assert root is not None
    for name in [n for n in _admins(client) if n != root.user]:
        client.admin.command("dropUser", name)
    client.admin.command("createRole", "inner", privileges=[], roles=["root", "__system"])
    client.admin.command("createRole", "outer", privileges=[], roles=["inner"])
    client.admin.command("createUser", "agent", pwd="first", roles=["outer"])
    host = guarded.primary().host
    node = await Node.open(f"mongodb://agent:first@{host}/?authSource=admin")
    yield World(guarded, client, node, await MemoryStorage.open())
    await node.aclose()


def _admins(client: Client) -> list[str]:
    return [one["user"] for one in client.admin.command("usersInfo")["users"]]


def add_users(client: Client) -> None:
    for database in ("shop", "crm"):
        client[database]["c"].insert_one({"_id": 1})
        client[database].command("createRole", "reader", privileges=[], roles=["read"])
        client[database].command("createUser", "ann", pwd="x", roles=["reader"])


async def test_a_full_restore_brings_them_back_and_keeps_the_agent_s(world: World) -> None:
    client = world.client
    add_users(client)
    before = list(client.admin["system.users"].find({"db": "shop"}))
    backup = await take_backup(world.node, world.storage)
    client["shop"].command("dropUser", "ann")
    client["shop"].command("dropRole", "reader")
    client["shop"].command("createUser", "new", pwd="x", roles=[])
    client["crm"].command("updateUser", "ann", customData={"changed": True}, roles=[])
    client.admin.command("updateUser", "agent", pwd="first", customData={"now": 1})
    client.admin.command("updateRole", "outer", roles=["inner", "read"])
    await RestoreRun.of(world.node, world.storage, backup).work()
    root = world.replset.options.auth
    assert root is not None
    assert world.users() == {"shop.ann", "crm.ann", "admin.agent", f"admin.{root.user}"}
    assert world.roles() == {"shop.reader", "crm.reader", "admin.inner", "admin.outer"}
    assert list(client.admin["system.users"].find({"db": "shop"})) == before
    crm = client.admin["system.users"].find_one({"_id": "crm.ann"})
    assert crm is not None
    assert "customData" not in crm
    agent = client.admin["system.users"].find_one({"_id": "admin.agent"})
    assert agent is not None
    assert agent["customData"] == {"now": 1}
    outer = client.admin["system.roles"].find_one({"_id": "admin.outer"})
    assert outer is not None
    assert len(outer["roles"]) == 2
    assert "tidelogTmpUsers" not in client.admin.list_collection_names()


async def test_writes_to_users_in_the_span_count(world: World) -> None:
    client = world.client
    add_users(client)

    async def write() -> None:
        client["shop"].command("dropUser", "ann")
        client["crm"].command("createUser", "bob", pwd="x", roles=[])

    backup = await take_backup(world.node, world.storage, before_end=write)
    client["crm"].command("dropAllUsersFromDatabase")
    await RestoreRun.of(world.node, world.storage, backup).work()
    assert world.users() >= {"crm.ann", "crm.bob"}
    assert "shop.ann" not in world.users()


async def test_a_selective_restore_leaves_them_alone(world: World) -> None:
    add_users(world.client)
    backup = await take_backup(world.node, world.storage)
    world.client["shop"].command("dropUser", "ann")
    await RestoreRun.of(world.node, world.storage, backup, ns=("shop.*",)).work()
    assert "shop.ann" not in world.users()


async def test_a_selective_restore_may_take_those_of_its_databases(world: World) -> None:
    client = world.client
    add_users(client)
    backup = await take_backup(world.node, world.storage)
    for database in ("shop", "crm"):
        client[database].command("dropUser", "ann")
        client[database].command("createUser", "new", pwd="x", roles=[])
    spec = {"ns": ("shop.*",), "with_users_and_roles": True}
    await RestoreRun.of(world.node, world.storage, backup, **spec).work()
    assert world.users() >= {"shop.ann", "crm.new", "admin.agent"}
    assert not world.users() & {"shop.new", "crm.ann"}
