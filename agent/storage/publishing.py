"""The moment at which an object becomes visible, for stores whose answers may be lost.

Each object carries a random mark. When the answer to a request was lost, the mark tells whether the
object that is there is this one, so that trying again neither fails nor hides another writer; and
after a `put` that was cancelled the mark tells what has to be removed.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agent.clock import Clock
from agent.errors import ObjectExists, ObjectNotFound, TidelogError, Transient

T = TypeVar("T")

MARK: Final = "tidelog-put"
"""The name of the mark in an object's metadata."""
_LOOKS_FOR_LATE_S: Final = (0.0, 0.03, 0.1, 0.4)
"""A request that was cut may still be carried out: it is looked for so many times."""


class Publication:
    """One object on its way under one key.

    `look` answers the mark of the object that has the key, None where it has none, and raises
    `ObjectNotFound`; `remove` deletes it. `cannot` begins the sentence of an error.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[str | None]],
        remove: Callable[[], Awaitable[object]],
        cannot: str,
        clock: Clock,
    ) -> None:
        self.mark = secrets.token_hex(12)
        self.in_doubt = False
        """Whether an object of this mark may be there that should not be."""
        self._look = look
        self._remove = remove
        self._cannot = cannot
        self._clock = clock

    async def publish(self, request: Callable[[], Awaitable[T]]) -> T | None:
        """The request that makes the object visible; in doubt until it is answered. None where
        it had been carried out before."""
        self.in_doubt = True
        try:
            answer = await request()
        except ObjectExists:
            # Perhaps by an attempt whose answer was lost, be it ours or one that the HTTP client
            # made by itself when a kept connection broke.
            if not await self.is_there():
                self.in_doubt = False
                raise
            self.in_doubt = False
            return None
        except TidelogError as error:
            self.in_doubt = isinstance(error, Transient)
            raise
        self.in_doubt = False
        return answer

    async def refuse_taken(self) -> None:
        """Raises `ObjectExists` where another object has the key."""
        try:
            mark = await self._look()
        except ObjectNotFound:
            return
        if mark != self.mark:
            raise ObjectExists(f"{self._cannot}: the key is taken")

    async def is_there(self) -> bool:
        """Whether the object is there."""
        try:
            return await self._look() == self.mark
        except ObjectNotFound:
            return False

    async def withdraw(self) -> None:
        """Remove what may have become visible after all."""
        if not self.in_doubt:
            return
        for pause_s in _LOOKS_FOR_LATE_S:
            await self._clock.sleep(pause_s)
            if await self.is_there():
                await self._remove()
                return
