"""Holds backups and restores of this agent to the pace that is wanted now.

What is read, sent and loaded takes its bytes from a bucket each; `ctl limit` changes the rates
while something runs, and a window begins or ends by itself. Windows go by the server's clock.
Without a limit nothing waits and nothing is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from agent.clock import Clock
from agent.coordination.wakeup import Wakeup
from agent.errors import Transient
from agent.storage.limiting import TokenBucket
from agent.wire.limits import Limits, Rates

APPLY_EVERY_S: Final = 5.0
"""A window's edge is noticed within this time."""
READ_EVERY_S: Final = 30.0
"""Changes wake; this is for a wake-up that was missed."""
LOOK_AT_LAG_EVERY_S: Final = 2.0

log = structlog.stdlib.get_logger()


class LimitsSource(Protocol):
    """Where limits are kept."""

    async def read(self) -> tuple[Limits, datetime]:
        """The limits and the server's time. Raises `Transient`."""


class Governor:
    """Shared by all that runs in this agent."""

    def __init__(self, clock: Clock, lag_s: Callable[[], Awaitable[float]]) -> None:
        """`lag_s` asks how far the node is behind its primary."""
        self._clock = clock
        self._lag_s = lag_s
        self._reading = TokenBucket(None, clock=clock)
        self.network = TokenBucket(None, clock=clock)
        self._loading = TokenBucket(None, clock=clock)
        self._rates = Rates()
        self._looked_at_lag = float("-inf")

    async def read(self, size_bytes: int) -> None:
        """Wait until so many bytes of BSON may have been read from the database."""
        await self._reading.take(size_bytes)
        while await self._is_behind():
            await self._clock.sleep(LOOK_AT_LAG_EVERY_S)

    def reading_s(self, size_bytes: int) -> float:
        """How long it takes at least, at the rates of now, to read and send so many bytes."""
        rates = (self._rates.read_bytes_per_s, self._rates.network_bytes_per_s)
        return max((size_bytes / rate for rate in rates if rate is not None), default=0.0)

    async def loaded(self, size_bytes: int) -> None:
        """Wait until so many bytes of BSON may be loaded into the database."""
        await self._loading.take(size_bytes)

    def apply(self, rates: Rates) -> None:
        """Go at these rates from now on."""
        if rates == self._rates:
            return
        self._rates = rates
        self._reading.set_rate(rates.read_bytes_per_s)
        self.network.set_rate(rates.network_bytes_per_s)
        self._loading.set_rate(rates.restore_bytes_per_s)
        log.info("governor.changed", **rates.to_json())

    async def watch(self, source: LimitsSource, wakeup: Wakeup) -> None:
        """Follow the limits for ever."""
        while True:
            wakeup.clear()
            try:
                limits, now = await source.read()
            except Transient as error:
                log.debug("governor.not_read", error=str(error))
                await self._clock.sleep(APPLY_EVERY_S)
                continue
            read_at, elapsed_s = self._clock.monotonic(), 0.0
            while elapsed_s < READ_EVERY_S and not wakeup.is_set:
                self.apply(limits.at(now + timedelta(seconds=elapsed_s)))
                await wakeup.wait(APPLY_EVERY_S)
                elapsed_s = self._clock.monotonic() - read_at

    async def _is_behind(self) -> bool:
        most = self._rates.max_lag_s
        if most is None or self._clock.monotonic() - self._looked_at_lag < LOOK_AT_LAG_EVERY_S:
            return False
        lag_s = await self._lag_s()
        if lag_s <= most:
            self._looked_at_lag = self._clock.monotonic()
            return False
        log.info("governor.paused", lag_s=lag_s, max_lag_s=most)
        return True
