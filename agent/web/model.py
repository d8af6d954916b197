"""The read model: one reading of the control database for whoever asks within two seconds.

Nobody asks, nothing is read. When the database does not answer, what was read last is served with
its age, which the moments shown count on from: what can be restored grows older either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.clock import Clock, host_time_s
from agent.coordination.heartbeat import Heartbeat
from agent.errors import TidelogError
from agent.storage.observing import StorageCounters
from agent.wire.optime import OpTime
from agent.wire.overview import Overview
from agent.wire.safety import Safety, assess

FRESH_S: Final = 2.0
WITHIN_S: Final = 5.0
OPLOG_FRESH_S: Final = 10.0
OPLOG_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Local:
    """What this agent knows without asking anybody."""

    node: str
    replset: str
    host: str
    cluster_id: str
    lead_replset: str
    heartbeat: Heartbeat
    storages: Mapping[str, StorageCounters]
    """By name of the storage profile."""
    events: Mapping[str, int]
    dropped_events: Callable[[], int]


@dataclass(frozen=True, slots=True)
class View:
    """All that one answer may show."""

    local: Local
    overview: Overview | None
    """None until the first reading has succeeded."""
    age_s: float
    error: str | None
    """Why the last reading failed."""
    clock_offset_s: float | None
    oplog: tuple[OpTime, OpTime] | None
    """Where the oplog of this node begins and ends, if it could be asked."""
    now_s: float
    """This process's monotonic clock."""

    @property
    def safety(self) -> Safety | None:
        """The verdict on the cluster."""
        return None if self.overview is None else assess(self.overview, age_s=self.age_s)


class ReadModel:
    """Reads when it has to, once for all who ask at the same time."""

    def __init__(
        self,
        local: Local,
        read: Callable[[], Awaitable[Overview]],
        read_oplog: Callable[[], Awaitable[tuple[OpTime, OpTime]]],
        clock: Clock,
    ) -> None:
        self._local = local
        self._read = read
        self._read_oplog = read_oplog
        self._clock = clock
        self._turn = asyncio.Lock()
        self._overview: Overview | None = None
        self._read_at = self._tried_at = self._oplog_at = float("-inf")
        self._offset_s: float | None = None
        self._oplog: tuple[OpTime, OpTime] | None = None
        self._error: str | None = None

    async def view(self) -> View:
        """What there is to show now; at most a few seconds after the database stopped answering."""
        async with self._turn:
            now = self._clock.monotonic()
            if now - self._tried_at >= FRESH_S:
                await self._renew()
                self._tried_at = self._clock.monotonic()
            if now - self._oplog_at >= OPLOG_FRESH_S:
                await self._renew_oplog()
                self._oplog_at = self._clock.monotonic()
        now = self._clock.monotonic()
        return View(
            local=self._local,
            overview=self._overview,
            age_s=now - self._read_at if self._overview is not None else 0.0,
            error=self._error,
            clock_offset_s=self._offset_s,
            oplog=self._oplog,
            now_s=now,
        )

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                overview = await self._read()
        except TidelogError as error:
            self._error = str(error)
        except TimeoutError:
            self._error = f"the control database did not answer within {WITHIN_S:g} s"
        else:
            self._overview, self._error = overview, None
            self._read_at = self._clock.monotonic()
            if overview.server_time is not None:
                self._offset_s = host_time_s() - overview.server_time.timestamp()

    async def _renew_oplog(self) -> None:
        try:
            async with asyncio.timeout(OPLOG_WITHIN_S):
                self._oplog = await self._read_oplog()
        except (TidelogError, TimeoutError):
            self._oplog = None
