"""The client as a process against a real control database, with the agent's part played."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.ctl.actor import Actor, open_actor
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet


@pytest.fixture
def ctl(one_node: ReplicaSet) -> Ctl:
    """The client, pointed at the one node."""
    return Ctl(one_node.uri())


@pytest_asyncio.fixture
async def actor(one_node: ReplicaSet) -> AsyncIterator[Actor]:
    """Who plays the agent of the one node."""
    async with open_actor(one_node.uri(), one_node.nodes[0].host) as found:
        yield found
