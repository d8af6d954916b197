"""An event loop in a thread: for servers of this process, beside tests that wait synchronously."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")
_WITHIN_S = 20.0


class Background:
    """A context; what was entered in it is left, last first, at its end."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context there."""
        entering = self._stack.enter_async_context(context)
        return asyncio.run_coroutine_threadsafe(entering, self._loop).result(_WITHIN_S)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result(_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_WITHIN_S)
        self._loop.close()
