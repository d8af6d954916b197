"""Blocking calls in a bounded pool of threads of their own, never in the default executor.

A blocking call cannot be interrupted: a cancelled `run` returns at once and its call, if it has
begun, goes on in its thread. So whatever owns a descriptor or a file serialises its calls with a
lock of its own and ends with `finish`, which waits for that call and then cleans up (see
`posix.Writer`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE_S: Final = 10.0
"""How long clean-up is waited for; a dead NFS server may hold a thread for ever."""


class Threads:
    """At most `size` blocking calls at once; each coroutine has one under way."""

    def __init__(self, size: int, name: str, *, patience_s: float = PATIENCE_S) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._patience_s = patience_s
        self._under_way: set[Future[None]] = set()

    async def run(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises. Cancelled, a call that has not begun never does."""
        return await asyncio.wrap_future(self._pool.submit(call))

    async def finish(self, call: Callable[[], None]) -> None:
        """Clean up: `call` is carried out even if the waiting coroutine is cancelled (again).

        Waits for it no longer than the patience; a call that is stuck ends by itself later.
        """
        future = self._pool.submit(call)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        done, _ = await asyncio.wait({asyncio.wrap_future(future)}, timeout=self._patience_s)
        for ended in done:
            ended.result()

    async def aclose(self) -> None:
        """Let the threads end; waits for clean-up under way, within the patience. Idempotent."""
        self._pool.shutdown(wait=False)
        waiting = {asyncio.wrap_future(future) for future in list(self._under_way)}
        if waiting:
            await asyncio.wait(waiting, timeout=self._patience_s)
