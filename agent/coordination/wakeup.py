"""When to look again: at each wake-up from the control database, and every few seconds anyway.

Level-triggered: a wake-up only says that something may have changed. Whoever waits clears it first,
then reads, then acts, then waits; so nothing that happens while it reads is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol

from agent.clock import jittered

POLL_S: Final = 5.0
"""For a wake-up that was lost: what brings them says so when it was broken off, which wakes too."""


class Commands(Protocol):
    """What waking up needs of the command queue."""

    def watch(self) -> AsyncIterator[dict[str, Any] | None]:
        """Each wake-up, for ever; `None` when some may have been missed."""


class Waiter(Protocol):
    """What is woken."""

    @property
    def wants_operations(self) -> bool:
        """Whether what concerns one operation wakes it too."""

    def wake(self) -> None:
        """Something may have changed."""


class Wakeup:
    """One waiter that looks again."""

    def __init__(self, *, poll_s: float = POLL_S, operations: bool = True) -> None:
        """With `operations=False`, what concerns one operation does not wake."""
        self.wants_operations = operations
        self._poll_s = poll_s
        self._event = asyncio.Event()
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether anything woke it since it was cleared."""
        return self._event.is_set()

    def wake(self) -> None:
        """Look again."""
        self._event.set()

    def clear(self) -> None:
        """What happens from now on wakes again. To be called before reading."""
        self._event.clear()

    async def wait(self, at_most_s: float | None = None) -> None:
        """Until a wake-up or the next poll."""
        poll_s = jittered(self._poll_s, 0.1)
        try:
            async with asyncio.timeout(poll_s if at_most_s is None else min(poll_s, at_most_s)):
                await self._event.wait()
        except TimeoutError:
            return


async def feed(
    commands: Commands,
    *waiters: Waiter,
    offer: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Hand the wake-ups of the control database to the waiters of this process, for ever, in their
    order. `offer` takes every command as it is; a question to all agents is for it, and wakes
    nobody else."""
    async for command in commands.watch():
        if command is not None and command.get("check") is not None:
            if offer is not None:
                offer(command)
            continue
        of_operation = command is not None and command.get("op_id") is not None
        for waiter in waiters:
            if waiter.wants_operations or not of_operation:
                waiter.wake()
