"""How far archiving is behind, said where people look.

What is not stored yet is in the oplog alone, and the oplog keeps it for its window only. So what
holds slicing up is noted on its run (or, where it cannot even begin, beside it) together with the
share of the window that is left, and a low share is warned of though nothing has failed. A storage
may be tried for minutes before it is given up; that slicing stands still meanwhile is said, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from agent.errors import StorageUnavailable, TidelogError
from agent.mongo.oplog import window_left
from agent.operations.context import Services
from agent.operations.machine import watched
from agent.operations.worker import WORK_WITHIN_S
from agent.wire.timelines import Run

LOW_WINDOW: Final = 0.5
"""Share of the oplog window left from which on it is warned of."""

STANDSTILL_S: Final = 15.0
"""Storing what was read takes less."""
_STANDSTILL: Final = (
    f"slicing has stood still for {STANDSTILL_S:g} s: the storage or the node does not answer, and"
    " is tried again; the agent's log says why"
)

log = structlog.stdlib.get_logger()


class Arrears:
    """Those of this agent's replica set."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replset = services.node.replset
        self._got_on_at = 0.0
        self._is_told = False

    async def begun(self) -> None:
        """A turn has begun: what kept it from beginning is over."""
        self._is_told = False
        await self._services.runs.note_trouble(self._replset, None)

    async def in_step(self, step: Callable[[], Awaitable[None]]) -> None:
        """Read or store, and say so if that stands still meanwhile. Raises what the step raises."""
        self._got_on_at = self._services.clock.monotonic()
        await watched(step, self._tell, within_s=WORK_WITHIN_S, what="archiving")
        await self.got_on()

    async def got_on(self) -> None:
        """Something is stored."""
        self._got_on_at = self._services.clock.monotonic()
        if self._is_told:
            self._is_told = False
            await self._services.runs.note_trouble(self._replset, None)

    async def _tell(self) -> None:
        clock = self._services.clock
        while not self._is_told:
            left_s = STANDSTILL_S - (clock.monotonic() - self._got_on_at)
            if left_s > 0:
                await clock.sleep(left_s)
                continue
            self._is_told = True
            await self.note(StorageUnavailable(_STANDSTILL), is_of_run=False)

    async def low_window(self, run: Run) -> str | None:
        """Say it while there is time: what is not stored yet must not fall off the oplog. Answers
        the words for people; None while there is enough. Raises `NodeUnavailable`."""
        left = await window_left(self._services.node, run.span.end)
        if left >= LOW_WINDOW:
            return None
        log.warning("oplog.window_low", replset=self._replset, left=f"{left:.0%}")
        return f"archiving is behind: {_words(left)}"

    async def note(self, error: TidelogError, *, is_of_run: bool) -> None:
        """Note why slicing does not get on; `is_of_run` where it had begun. Raises nothing of what
        keeps it from noting: that may be what keeps it from slicing, too."""
        runs = self._services.runs
        try:
            last = next(reversed(await runs.runs(self._replset)), None)
            words = f"{error}{await self._left(last)}"
            if not is_of_run:
                await runs.note_trouble(self._replset, words)
            elif last is not None and last.node == self._services.node.id:
                await runs.save(last.model_copy(update={"error": words}))
        except TidelogError as trouble:
            log.warning("slicer.error_not_noted", replset=self._replset, error=str(trouble))

    async def _left(self, run: Run | None) -> str:
        if run is None or run.sealed:
            return ""  # nothing is to be continued
        try:
            left = await window_left(self._services.node, run.span.end)
        except TidelogError:
            return ""  # it cannot be read, or not now
        if left < LOW_WINDOW:
            log.warning("oplog.window_low", replset=self._replset, left=f"{left:.0%}")
        return f"; {_words(left)}"


def _words(left: float) -> str:
    return f"{left:.0%} of the oplog's window is left"
