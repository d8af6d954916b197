"""An agent whose replica set becomes a shard ends, to begin anew at the config servers."""

from __future__ import annotations

import asyncio

import pytest

from agent.coordination.membership import LOOK_EVERY_S, Membership
from agent.errors import NodeUnavailable
from tests.support.manual_clock import ManualClock


class _Node:
    replset = "rs-a"
    shard: str | None = None

    def __init__(self) -> None:
        self.now: str | None = None
        self.is_down = False

    async def read_shard(self) -> str | None:
        """What the server would say."""
        if self.is_down:
            raise NodeUnavailable("it does not answer")
        return self.now


async def test_agent_ends_when_its_replica_set_has_become_a_shard() -> None:
    node, clock = _Node(), ManualClock()
    running = asyncio.ensure_future(Membership(node, clock).run())
    node.is_down = True
    await clock.advance(3 * LOOK_EVERY_S)
    node.is_down = False
    await clock.advance(3 * LOOK_EVERY_S)
    assert not running.done()
    node.now = "s0"
    await clock.advance(2 * LOOK_EVERY_S)
    with pytest.raises(NodeUnavailable, match="rs-a has become shard s0"):
        await running
