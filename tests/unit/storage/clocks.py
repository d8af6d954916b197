"""A clock that tests own: sleeping takes no time and is written down."""

from __future__ import annotations

import asyncio


class FakeClock:
    """See `agent.clock.Clock`."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)
