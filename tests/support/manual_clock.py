"""A clock that goes on only when the test says so; who sleeps wakes when its time has come."""

from __future__ import annotations

import asyncio


class ManualClock:
    """See `agent.clock.Clock`."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        awake = asyncio.Event()
        self._sleepers.append((self.now_s + seconds, awake))
        await awake.wait()

    async def advance(self, seconds: float) -> None:
        """Let so much time pass, waking sleepers in order; each runs before time goes on."""
        end = self.now_s + seconds
        await settle()
        while due := [sleeper for sleeper in self._sleepers if sleeper[0] <= end]:
            first = min(due, key=lambda sleeper: sleeper[0])
            self._sleepers.remove(first)
            self.now_s = max(self.now_s, first[0])
            first[1].set()
            await settle()
        self.now_s = end

    def jump(self, seconds: float) -> None:
        """Let time pass while this process stands still: nobody wakes before somebody runs."""
        self.now_s += seconds

    async def wake_due(self) -> None:
        """Wake those whose time has come while the process stood still."""
        await self.advance(0)


async def settle(rounds: int = 20) -> None:
    """Let everything that can run now run."""
    for _ in range(rounds):
        await asyncio.sleep(0)
