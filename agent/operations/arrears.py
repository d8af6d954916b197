"""How far archiving is behind, said where people look.

What is not stored yet is in the oplog alone, and the oplog keeps it for its window only. So what
holds slicing up is noted on its run (or, where it cannot even begin, beside it) together with the
share of the window that is left, and a low share is warned of though nothing has failed.
"""

from __future__ import annotations

from typing import Final

import structlog

from agent.errors import LeaseLost, TidelogError, Transient
from agent.mongo.oplog import window_left
from agent.operations.context import Services
from agent.wire.timelines import Run

LOW_WINDOW: Final = 0.5
"""Share of the oplog window left from which on it is warned of."""

log = structlog.stdlib.get_logger()


class Arrears:
    """Those of this agent's replica set."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._replset = services.node.replset

    async def low_window(self, run: Run) -> str | None:
        """Say it while there is time: what is not stored yet must not fall off the oplog. Answers
        the words for people; None while there is enough. Raises `NodeUnavailable`."""
        left = await window_left(self._services.node, run.span.end)
        if left >= LOW_WINDOW:
            return None
        log.warning("oplog.window_low", replset=self._replset, left=f"{left:.0%}")
        return f"archiving is behind: {_words(left)}"

    async def note(self, error: TidelogError, *, is_of_run: bool) -> None:
        """Note why slicing does not get on; `is_of_run` where it had begun."""
        runs = self._services.runs
        try:
            last = next(reversed(await runs.runs(self._replset)), None)
            words = f"{error}{await self._left(last)}"
            if not is_of_run:
                await runs.note_trouble(self._replset, words)
            elif last is not None and last.node == self._services.node.id:
                await runs.save(last.model_copy(update={"error": words}))
        except (Transient, LeaseLost):
            log.warning("slicer.error_not_noted", replset=self._replset)

    async def _left(self, run: Run | None) -> str:
        if run is None or run.sealed:
            return ""  # nothing is to be continued
        try:
            left = await window_left(self._services.node, run.span.end)
        except Transient:
            return ""
        if left < LOW_WINDOW:
            log.warning("oplog.window_low", replset=self._replset, left=f"{left:.0%}")
        return f"; {_words(left)}"


def _words(left: float) -> str:
    return f"{left:.0%} of the oplog's window is left"
