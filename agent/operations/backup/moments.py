"""At which OpTime a snapshot is read, and how long reading may take at one.

mongod keeps history for a while (300 s by default). Ranges are short, so a newer OpTime is taken
before it ends; a collection that is read whole has to be over within it.
"""

from __future__ import annotations

from typing import Final

from agent.clock import Clock
from agent.errors import NodeUnavailable
from agent.mongo.cursor import SnapshotLost
from agent.mongo.node import Node
from agent.mongo.translate import SNAPSHOT_TOO_OLD
from agent.wire.optime import OpTime

SNAPSHOT_AGE_S: Final = 60.0
"""How long one OpTime is read at; mongod keeps history for 300 s, and a unit has to end in it."""
WHOLE_S: Final = 15.0
"""What is read whole takes no longer: with the agent all of it would be lost, ranges are kept."""
PACE_AFTER_S: Final = 2.0
"""When it is first asked whether a whole collection is read fast enough."""
_REREADS: Final = 10
_LONGEST_PAUSE_S: Final = 4.0


class ReadClock:
    """Which OpTime to read at: one for as long as mongod surely keeps its history, then a newer
    one. Few distinct values keep replay's question "is this operation in the chunk?" cheap."""

    def __init__(self, node: Node, clock: Clock, read_at: OpTime) -> None:
        self._node = node
        self._clock = clock
        self._read_at = read_at
        self._taken = clock.monotonic()

    async def now(self) -> OpTime:
        """The OpTime to read at now."""
        if self._clock.monotonic() - self._taken > SNAPSHOT_AGE_S:
            await self.renew()
        return self._read_at

    async def renew(self) -> OpTime:
        """The newest committed OpTime, from now on."""
        taken = self._clock.monotonic()
        self._read_at = max(self._read_at, await self._node.committed())
        self._taken = taken
        return self._read_at

    def pace(self, size_bytes: int) -> Pace:
        """Of a whole collection whose reading begins now."""
        return Pace(self._clock, size_bytes)

    async def recover(self, losses: int, error: SnapshotLost) -> OpTime:
        """A later OpTime, after so many losses in a row: what changed the collection may still
        have to be committed. Raises `NodeUnavailable` when that goes on too long."""
        if losses > _REREADS:
            raise NodeUnavailable(
                f"reading was lost to changes {losses} times in a row: {error.message}"
            ) from error
        if losses > 1:
            await self._clock.sleep(min(_LONGEST_PAUSE_S, 0.05 * 2**losses))
        return await self.renew()


class Pace:
    """Tells early that a collection comes too slowly to be read whole: that the node is slow, or
    the storage."""

    def __init__(self, clock: Clock, size_bytes: int) -> None:
        self._clock = clock
        self._size_bytes = size_bytes
        self._begun = clock.monotonic()

    def check(self, read_bytes: int) -> None:
        """Raises `SnapshotLost` when the rest would take longer than `WHOLE_S`."""
        elapsed_s = self._clock.monotonic() - self._begun
        if elapsed_s < PACE_AFTER_S:
            return
        left_s = (self._size_bytes - read_bytes) * elapsed_s / max(1, read_bytes)
        if left_s > WHOLE_S:
            # What the server would say later.
            raise SnapshotLost(
                f"reading on to the end of the collection would take {left_s:.0f} s",
                code=SNAPSHOT_TOO_OLD,
            )
