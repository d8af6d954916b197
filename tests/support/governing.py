"""A governor that lets everything through."""

from __future__ import annotations

from agent.clock import SystemClock
from agent.operations.governor import Governor


def ungoverned() -> Governor:
    """No limit, and no node to be behind."""

    async def lag_s() -> float:
        return 0.0

    return Governor(SystemClock(), lag_s)
