"""A part's progress, told while it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from agent.errors import Transient, root_cause
from agent.operations.context import PartContext
from agent.operations.restore.job import Tally, is_over
from agent.tasks import TaskGroup

REPORT_EVERY_S: Final = 1.0

T = TypeVar("T")


async def reporting(part: PartContext, tally: Tally, work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, and say every second how far it has come. Raises what the work raises, and
    `OperationCancelled` or `LeaseLost` as soon as they are heard of; one error, where several tasks
    fail."""
    ended = asyncio.Event()
    try:
        async with TaskGroup() as group:
            group.create_task(_tell(part, tally, ended))
            done = await work()
            ended.set()
    except BaseExceptionGroup as errors:
        cause = root_cause(errors)
        raise cause from cause.__cause__
    return done


async def _tell(part: PartContext, tally: Tally, ended: asyncio.Event) -> None:
    while not await is_over(ended, REPORT_EVERY_S):
        try:
            await part.refresh()
            await part.report(tally.progress())
        except Transient:
            # That the control database cannot be reached now is no reason to stop; losing the lease
            # is, and the lease says so itself.
            continue
