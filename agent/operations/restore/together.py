"""The parts of a restore of a sharded cluster wait for each other.

Each records how far it is in the operation's document, where all can read it. A part that fails
ends the operation, and with that the waiting of all others; so does one whose agents are gone.
"""

from __future__ import annotations

import asyncio
from typing import Final

from agent.errors import NodeUnavailable
from agent.operations.context import PartContext
from agent.operations.restore.state import Stage
from agent.wire.operations import Operation

WAIT_WITHIN_S: Final = 14 * 24 * 3600.0
"""As long as the work itself may take: who is done first waits until the largest part is."""
_SOON_S: Final = 0.03
_LATER_S: Final = 1.0


async def await_stage(part: PartContext, stage: Stage, *, of: str | None = None) -> None:
    """Wait until all parts, or that of one replica set, have reached a stage. Raises
    `NodeUnavailable` naming one that has not, `Superseded` when the operation is over."""
    delay_s = _SOON_S
    waiting: list[str] = []
    try:
        async with asyncio.timeout(WAIT_WITHIN_S):
            while waiting := _behind(await part.refresh(), stage, of):
                await part.services.clock.sleep(delay_s)
                delay_s = min(_LATER_S, delay_s * 1.3)
    except TimeoutError:
        raise NodeUnavailable(
            f"the part of {waiting[0]} did not get as far as '{stage}' within {WAIT_WITHIN_S:g} s"
        ) from None


def _behind(operation: Operation, stage: Stage, of: str | None) -> list[str]:
    found = []
    for part in operation.parts:
        reached = Stage(part.result.get("state", {}).get("stage", Stage.NEW))
        if of in (None, part.replset) and not reached.is_past(stage):
            found.append(part.replset)
    return found
