"""Groups of tasks that do not forget that they were cancelled.

Until Python 3.13, `asyncio.TaskGroup` loses a cancellation that arrives while the group is ending
by an error (python/cpython#116720): the errors come out, whoever handles them goes on, and an agent
that was told to stop does not. And a task that fails after the body has ended leaves the whole task
marked as cancelled. Since 3.13 the errors come out first, and the cancellation where something is
waited for next, which may be the handling of the errors. Here it is the cancellation that comes
out, with any version.
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Self


class TaskGroup(asyncio.TaskGroup):
    """As `asyncio.TaskGroup`; but when its task was cancelled from outside, the cancellation comes
    out of it, in the context of the errors there were."""

    _parent_cancel_requested: bool  # the base's: it ended the body as a task failed

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._cancelled_before = _current().cancelling()
        return self

    if sys.version_info >= (3, 13):

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            try:
                await super().__aexit__(kind, error, trace)
            except BaseExceptionGroup:
                if _current().cancelling() > self._cancelled_before:
                    await asyncio.sleep(0)  # where the cancellation comes out
                raise

    else:

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            task, was_body_ended = _current(), self._parent_cancel_requested
            at_exit = task.cancelling() - was_body_ended
            was_cancelled = kind is asyncio.CancelledError and (
                not was_body_ended or at_exit > self._cancelled_before
            )
            try:
                await super().__aexit__(kind, error, trace)
            except BaseExceptionGroup as errors:
                if self._parent_cancel_requested and not was_body_ended:
                    task.uncancel()  # the base looks for this before it waits, not after
                if was_cancelled or task.cancelling() > at_exit:
                    raise asyncio.CancelledError from errors
                raise


def _current() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None, "a group has entered, so there is a task"
    return task
