"""Time as a parameter: what waits or measures takes a `Clock`, so that tests own time.

A clock here measures *durations* only. Whatever is written down or compared between processes uses
the server's time (`$$NOW`, cluster time, OpTime), never an agent's clock.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Durations of this process."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never goes back. Counts time spent suspended, so
        that a process stopped past its lease knows it when it wakes up."""

    async def sleep(self, seconds: float) -> None:
        """Wait at least so long."""


class SystemClock:
    """The clock of this machine."""

    def monotonic(self) -> float:
        """CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC it goes on while the machine is suspended."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def host_time_s() -> float:
    """The wall clock of this host, in seconds since 1970: to tell a person how far it is off from
    a store's. Nothing is stored or decided by it."""
    return time.clock_gettime(time.CLOCK_REALTIME)


def jittered(seconds: float, share: float = 0.2) -> float:
    """`seconds` give or take `share` of it, so that agents do not act in step."""
    return seconds * random.uniform(1 - share, 1 + share)


def signing_time() -> datetime:
    """The wall clock, for requests that are signed with the time of day and for nothing else: the
    server that checks them refuses a clock that is wrong by minutes."""
    return datetime.now(UTC)
