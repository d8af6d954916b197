"""The balancer, while an operation wants ranges to stay where they are.

An operation pauses it, and puts it back when it no longer minds. Whether it lives to do so does not
matter: an agent of the config servers looks every few seconds whether a pause has outlived its
operation, and puts the balancer back exactly as it was.

Backups and restores are right without a pause: at every moment the shard that owns a range by
`config.chunks` holds all of it, since a move writes the copy before it changes the owner and
deletes after, in the order of cluster time. The pause keeps moves from adding to what is read and
replayed.
"""

from __future__ import annotations

from typing import Final

import structlog

from agent.clock import Clock, jittered
from agent.errors import TidelogError, Transient
from agent.faults import fault_point
from agent.operations.context import Services

TIDY_EVERY_S: Final = 3.0
REFUSED_AGAIN_S: Final = 60.0
_POLL_S: Final = 0.1

log = structlog.stdlib.get_logger()


async def keep_still(services: Services, op_id: str, *, within_s: float) -> None:
    """Pause the balancer for an operation and wait for moves under way, so long at most. Of a
    replica set, nothing happens. Idempotent."""
    if not services.cluster.is_sharded:
        return
    if await services.balancer.pause(op_id):
        log.info("balancer.paused", op_id=op_id)
    await fault_point("balancer.paused")
    end = services.clock.monotonic() + within_s
    while moving := await services.cluster.migrations():
        if services.clock.monotonic() >= end:
            log.warning("balancer.still_moving", collections=moving, waited_s=within_s)
            return
        await services.clock.sleep(_POLL_S)


async def let_go(services: Services, op_id: str) -> None:
    """Put the balancer back, if this operation paused it."""
    if await services.balancer.put_back(op_id):
        log.info("balancer.put_back", op_id=op_id)
        await fault_point("balancer.put_back")


class BalancerKeeper:
    """Puts the balancer back for those that did not live to: `run` is for the agent's group."""

    def __init__(self, services: Services, clock: Clock) -> None:
        self._services = services
        self._clock = clock

    async def run(self) -> None:
        """Look every few seconds, for ever; on a replica set without config servers never."""
        while self._services.node.is_config:
            wait_s = TIDY_EVERY_S
            try:
                op_id = await self._services.balancer.tidy(self._active)
                if op_id is not None:
                    log.info("balancer.put_back", op_id=op_id)
            except Transient as error:
                log.debug("balancer.not_looked_at", error=str(error))
            except TidelogError as error:
                # A right is missing, perhaps; until it is granted, a pause that was left stays.
                log.warning("balancer.not_looked_at", error=str(error), hint=error.hint)
                wait_s = REFUSED_AGAIN_S
            await self._clock.sleep(jittered(wait_s))

    async def _active(self) -> set[str]:
        return {operation.id for operation in await self._services.operations.active()}
