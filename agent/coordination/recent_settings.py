"""The settings, read once for all that watch them in this agent.

Many parts look at the settings every few seconds, and they change a few times a year. So one answer
of the database serves all of them until it is outdated: by a wake-up, which every change of the
settings brings about, or by its age, should the wake-up have been lost. What begins an operation
reads the settings themselves instead: it must not begin with older ones than its command was
written after.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from agent.clock import Clock
from agent.wire.settings import Settings

KEPT_FOR_S: Final = 20.0


class SettingsSource(Protocol):
    """Where settings are read."""

    async def read(self) -> tuple[Settings, int]:
        """The settings and their version. Raises `StoreUnavailable`."""


class RecentSettings:
    """A `SettingsSource`, and a waiter of the wake-ups: to be woken before those that read it."""

    wants_operations: Final = False
    """What concerns one operation outdates nothing."""

    def __init__(self, source: SettingsSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._reading = asyncio.Lock()
        self._known: tuple[Settings, int] | None = None
        self._fresh_until = 0.0
        self._changes = 0

    def wake(self) -> None:
        """They may have changed: what was read, and what is being read, is outdated."""
        self._changes += 1
        self._known = None

    async def read(self) -> tuple[Settings, int]:
        """Not older than the last wake-up. Raises `StoreUnavailable`."""
        async with self._reading:
            known, now = self._known, self._clock.monotonic()
            if known is not None and now < self._fresh_until:
                return known
            changes = self._changes
            found = await self._source.read()
            if changes == self._changes:
                self._known, self._fresh_until = found, now + KEPT_FOR_S
            return found
