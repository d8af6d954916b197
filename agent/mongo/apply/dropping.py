"""Waiting for databases that are on their way out.

A database that is dropped is first emptied, then the server waits until a majority has seen that;
until then it refuses every collection in it, and every other drop of it. Nobody who restores sees
why: there is nothing in it any more. The command of a worker that died, was cancelled or lost its
connection is carried out all the same, so the next worker may well meet what it left under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agent.mongo.translate import DropPending

LOOK_S: Final = 0.1
WITHIN_S: Final = 900.0
"""The server waits ten minutes for a majority to follow, and then gives up."""

T = TypeVar("T")


async def once_dropped(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call, and make it again while the server refuses it because the database is being
    dropped. Raises what the call raises: `DropPending`, too, when that lasts for `WITHIN_S`."""
    end = asyncio.get_running_loop().time() + WITHIN_S
    while True:
        try:
            return await call()
        except DropPending:
            if asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(LOOK_S)
