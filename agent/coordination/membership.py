"""Whether the replica set is still what it was when the agent began: alone, or this shard.

The control database of a replica set that becomes a shard is the config servers' from then on. An
agent that began before that would go on with the old one, unseen by all others; so it ends, and its
supervisor starts it anew in the right place.
"""

from __future__ import annotations

from typing import Final, Protocol

import structlog

from agent.clock import Clock, jittered
from agent.errors import NodeUnavailable, TidelogError

LOOK_EVERY_S: Final = 30.0

log = structlog.stdlib.get_logger()


class Member(Protocol):
    """What is asked of the node."""

    replset: str
    shard: str | None

    async def read_shard(self) -> str | None:
        """The name of the shard that the replica set is now."""


class Membership:
    """`run` is for the agent's task group."""

    def __init__(self, node: Member, clock: Clock) -> None:
        self._node = node
        self._clock = clock

    async def run(self) -> None:
        """Look every half minute. Raises `NodeUnavailable` when the shard is another."""
        while True:
            await self._clock.sleep(jittered(LOOK_EVERY_S))
            try:
                shard = await self._node.read_shard()
            except TidelogError as error:
                log.debug("node.shard_not_read", error=str(error))
                continue
            if shard != self._node.shard:
                raise NodeUnavailable(
                    f"replica set {self._node.replset} has become shard {shard}: the agent ends, to"
                    " find the config servers when it is started again",
                    hint="start the agent again, if no supervisor does",
                )
