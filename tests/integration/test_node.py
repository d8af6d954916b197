"""A node that is read over one direct client, whatever it goes through meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent.errors import NodeUnavailable
from agent.mongo import clients
from agent.mongo.apply.target import find_all
from agent.mongo.clients import open_client
from agent.mongo.counting import count_exactly
from agent.mongo.node import Node
from agent.store.connection import open_control
from agent.wire.nodes import Role
from tests.support.eventually import eventually_async
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import open_node


async def test_a_node_that_was_connected_to_while_it_recovered_is_read_again(
    three_nodes: ReplicaSet,
) -> None:
    """The driver never uses sessions on a connection made meanwhile, and never drops it."""
    async with open_node(three_nodes, three_nodes.secondaries()[0]) as node:

        async def is_readable() -> bool:
            return (await node.hello()).role is Role.SECONDARY

        await node.command("admin", {"replSetMaintenance": True}, timeout_s=None)
        try:
            node.direct.close()
            node.direct = open_client(node.uri, directConnection=True)
            assert (await node.hello()).role is Role.STARTUP
        finally:
            await node.command("admin", {"replSetMaintenance": False}, timeout_s=None)
        await eventually_async(is_readable, within_s=10.0)
        with pytest.raises(NodeUnavailable, match="in no replica set now"):
            await find_all(node, "admin.system.version")
        for _ in range(3):
            assert await find_all(node, "admin.system.version")


async def test_a_node_knows_how_many_copy_from_it(three_nodes: ReplicaSet) -> None:
    async def is_told() -> bool:
        found = {}
        for member in three_nodes.data_nodes:
            async with open_node(three_nodes, member) as node:
                found[member.host] = await node.copied_by()
        return found.pop(three_nodes.primary().host) == 2 and set(found.values()) == {0}

    await eventually_async(is_told, within_s=30.0)


async def test_closing_does_not_wait_for_a_server_that_hangs(one_node: ReplicaSet) -> None:
    """Nothing else of the process would go on, not even leases."""
    control = await open_control(one_node.uri(), app_name="tests")
    async with open_node(one_node) as node:
        await control.now()
        await node.note("tests")
        one_node.nodes[0].pause()
        try:
            begun = time.monotonic()
            await control.aclose()
            await node.aclose()
            took_s = time.monotonic() - begun
        finally:
            one_node.nodes[0].resume()
    assert took_s < 6


async def test_what_may_take_days_ends_soon_where_the_server_hangs(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent, and what would be sent: with the driver's own timeout of a call, its wait for
    a server would be as long."""
    monkeypatch.setattr(clients, "CONNECT_TIMEOUT_S", 1.0)
    node = await Node.open(f"{one_node.uri_of(one_node.nodes[0])}&heartbeatFrequencyMS=500")
    try:
        assert await count_exactly(node, "db.none") == 0
        one_node.nodes[0].pause()
        try:
            for _ in range(2):
                async with asyncio.timeout(20):
                    with pytest.raises(NodeUnavailable):
                        await count_exactly(node, "db.none")
        finally:
            one_node.nodes[0].resume()
        assert await count_exactly(node, "db.none") == 0
    finally:
        await node.aclose()
