"""Something that expires and is fetched anew in time: tokens and temporary keys of all clouds.

Fetched when it is first asked for; again once less than a margin of its life is left, by one caller
while the others wait. When that fails and the old one is still good for a while, it goes on being
used and the next call tries again: a token service that is down for a minute breaks no upload.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from agent.clock import Clock
from agent.errors import TidelogError

T = TypeVar("T")

MARGIN_S: Final = 300.0
MARGIN_SHARE: Final = 0.25
"""Short-lived ones are renewed after three quarters of their life."""
TRY_AGAIN_S: Final = 10.0
USABLE_S: Final = 5.0
"""With less left than this an old one is not used any more."""


@dataclass(frozen=True, slots=True)
class Fresh(Generic[T]):
    """What was fetched, and for how many seconds from now it is good; None is for ever."""

    value: T
    lifetime_s: float | None


class Refreshing(Generic[T]):
    """See the module."""

    def __init__(self, fetch: Callable[[], Awaitable[Fresh[T]]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._turn = asyncio.Lock()
        self._held: Fresh[T] | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0

    async def get(self) -> T:
        """The current one. Raises what `fetch` raises where none is left."""
        if self._held is None or self._clock.monotonic() >= self._renew_at:
            async with self._turn:
                await self._renew()
        assert self._held is not None
        return self._held.value

    def forget(self, value: T) -> None:
        """The server refused this one: the next call fetches another. One that was renewed
        meanwhile stays."""
        if self._held is not None and self._held.value is value:
            self._held = None

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        if self._held is not None and now < self._renew_at:
            return  # somebody else did while this call waited
        try:
            held = await self._fetch()
        except TidelogError:
            if self._held is None or now + USABLE_S >= self._ends_at:
                raise
            self._renew_at = now + min(TRY_AGAIN_S, (self._ends_at - now) / 2)
            return
        self._held = held
        if held.lifetime_s is None:
            self._renew_at = self._ends_at = float("inf")
        else:
            self._ends_at = now + held.lifetime_s
            margin = min(MARGIN_S, held.lifetime_s * MARGIN_SHARE)
            self._renew_at = self._ends_at - margin
