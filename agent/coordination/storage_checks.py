"""Answers to `ctl storage check`: this agent tries the storage when it is asked, and says so with
its next heartbeat, which is sent at once.

A request is a command document, so agents that are awake hear of it within the moment. Commands are
read from their beginning after each break: a request that was answered already, or that nobody can
be waiting for any more, is passed over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydantic import ValidationError

from agent.clock import Clock
from agent.coordination.heartbeat import Condition
from agent.errors import TidelogError
from agent.wire.storage_reports import (
    ANSWER_WITHIN_S,
    FRESH_S,
    StorageCheckRequest,
    StorageReport,
)

KEPT: Final = 4
"""Answers that the heartbeat carries: those of the last requests."""
KEPT_FOR_S: Final = 120.0
_REMEMBERED: Final = 64

log = structlog.stdlib.get_logger()


@dataclass
class StorageChecks:
    """`offer` takes commands in, `run` answers them, one after the other."""

    node: str
    condition: Condition
    check: Callable[[StorageCheckRequest], Awaitable[StorageReport]]
    """Tries the storage. Raises `TidelogError` where it does not come so far."""
    now_s: Callable[[], Awaitable[int]]
    """The server's time."""
    clock: Clock
    _asked: asyncio.Queue[StorageCheckRequest] = field(
        default_factory=lambda: asyncio.Queue(maxsize=_REMEMBERED)
    )
    _seen: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    def offer(self, command: Mapping[str, Any]) -> None:
        """Take in a command, if it is a request."""
        written = command.get("check")
        if written is None:
            return
        try:
            request = StorageCheckRequest.from_document(written)
        except ValidationError:
            return  # of a version that asks otherwise
        if request.id in self._seen or self._asked.full():
            return
        self._seen.append(request.id)
        self._asked.put_nowait(request)

    async def run(self) -> None:
        """Answer, for ever."""
        while True:
            try:
                async with asyncio.timeout(KEPT_FOR_S):
                    request = await self._asked.get()
            except TimeoutError:
                self.condition.reports = ()
                continue
            try:
                if await self.now_s() - request.at_s > FRESH_S:
                    continue
            except TidelogError as error:
                log.warning("settings.not_read", error=str(error))
                continue
            report = await self._answered(request)
            self.condition.reports = (*self.condition.reports, report)[-KEPT:]
            self.condition.changed.set()

    async def _answered(self, request: StorageCheckRequest) -> StorageReport:
        blank = StorageReport(id=request.id, node=self.node, profile=request.profile)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await self.check(request)
        except TidelogError as error:
            return blank.model_copy(update={"error": error.message, "hint": error.hint})
        except TimeoutError:
            why = f"the storage did not answer within {ANSWER_WITHIN_S:g} s"
            return blank.model_copy(update={"error": why})
