"""Sessions for reading, used again and again.

Opening one and ending it are two trips to the driver's threads, where reading a small collection is
one: of thousands of them, sessions cost more than documents. So who is done with a session leaves
it to the next. One that something failed in is ended, and never used again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

MOST_IDLE: Final = 8
"""More than read side by side by default; others are ended."""


class Sessions:
    """Those that wait to be used again. No two users have the same at a time."""

    def __init__(self) -> None:
        self._idle: list[Any] = []

    async def take(self, client: Any) -> Any:
        """A session of this client, without causal consistency, which would add an
        `afterClusterTime` of its own to every read. Raises what the driver raises."""
        while self._idle:
            session = self._idle.pop()
            if session.client is client:
                return session
            # Of a client that was replaced, and goes with that one.
        return await client.start_session(causal_consistency=False)

    @asynccontextmanager
    async def left(self, session: Any) -> AsyncIterator[None]:
        """Leave a session to the next, unless the body raises."""
        try:
            yield
        except BaseException:
            await session.end_session()
            raise
        if len(self._idle) < MOST_IDLE and not session.has_ended:
            self._idle.append(session)
        else:
            await session.end_session()

    async def aclose(self) -> None:
        """End those that wait."""
        while self._idle:
            await self._idle.pop().end_session()
