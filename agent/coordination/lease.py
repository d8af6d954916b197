"""Holding a lease while something is done, and stopping in time when it cannot be held.

`hold` renews in the background. Two things can go wrong, and both end the body with `LeaseLost`:
somebody else owns the lease now (the store says so), or no renewal *succeeded* for so long that
somebody else may own it soon (the store is unreachable, or this process was stopped). For the
second the holder keeps its own deadline, counted on a clock that goes on while the machine sleeps,
from the *start* of the last successful renewal: it is over before the server lets anybody else in.

The renewer needs the event loop to run; a body that wakes up from SIGSTOP may run first. So every
durable act is preceded by `check()`, which looks at the deadline itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

import structlog

from agent.clock import Clock, jittered
from agent.errors import LeaseLost, Transient, root_cause
from agent.faults import fault_point
from agent.tasks import TaskGroup
from agent.wire.leases import MARGIN_S, RENEW_EVERY_S, TTL_S, Lease

RELEASE_TIMEOUT_S: Final = 2.0
RETRY_S: Final = 0.5

log = structlog.stdlib.get_logger()


class Leases(Protocol):
    """What holding needs of the lease store."""

    async def renew(self, lease: Lease, ttl_s: float = TTL_S) -> Lease:
        """Raises `LeaseLost` or `Transient`."""

    async def release(self, lease: Lease) -> None:
        """Raises `Transient`."""


class HeldLease:
    """A lease that this process holds, as long as `check()` does not raise."""

    def __init__(self, lease: Lease, clock: Clock) -> None:
        self.scope = lease.id
        self.owner = lease.owner or ""
        self.epoch = lease.epoch
        self.lease = lease
        self._clock = clock
        asked_at = clock.monotonic() if lease.asked_at is None else lease.asked_at
        self._deadline = asked_at + TTL_S - MARGIN_S
        self._lost: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it is over."""
        return self._lost is not None or self.remaining_s <= 0

    @property
    def remaining_s(self) -> float:
        """Until this holder must have stopped, unless it renews before."""
        return self._deadline - self._clock.monotonic()

    def check(self) -> None:
        """To be called before every durable act. Raises `LeaseLost`."""
        if self._lost is None and self.remaining_s <= 0:
            self._lost = (
                f"the lease {self.scope} of epoch {self.epoch} could not be renewed in time"
            )
        if self._lost is not None:
            raise LeaseLost(self._lost)

    def renewed(self, started_at: float) -> None:
        """A renewal that began then has succeeded. Too late a one does not revive the lease."""
        self.check()
        self._deadline = started_at + TTL_S - MARGIN_S

    def lose(self, why: str) -> None:
        """It is known to be over."""
        self._lost = self._lost or why


@asynccontextmanager
async def hold(store: Leases, lease: Lease, clock: Clock) -> AsyncIterator[HeldLease]:
    """Renew a lease that was just acquired while the body runs, and release it afterwards.

    The body is cancelled when the lease is lost, and `LeaseLost` raised; an error of the body comes
    out as it is (of several, the one to record). A lost lease is not released.
    """
    held = HeldLease(lease, clock)
    try:
        async with TaskGroup() as group:
            renewer = group.create_task(_renew(store, held, clock), name=f"renew {lease.id}")
            await fault_point("lease.acquired")
            try:
                yield held
            finally:
                renewer.cancel()
    except BaseExceptionGroup as errors:
        cause = root_cause(errors)
        raise cause from cause.__cause__
    finally:
        if not held.is_lost:
            await _release(store, held)


async def _renew(store: Leases, held: HeldLease, clock: Clock) -> None:
    pause_s = jittered(RENEW_EVERY_S)
    while True:
        await clock.sleep(min(pause_s, max(held.remaining_s, 0.0)))
        held.check()
        started_at = clock.monotonic()
        try:
            async with asyncio.timeout(held.remaining_s):
                await store.renew(held.lease)
        except LeaseLost as error:
            held.lose(str(error))
            raise
        except (Transient, TimeoutError) as error:
            log.warning("lease.renewal_failed", scope=held.scope, error=str(error) or "timeout")
            pause_s = RETRY_S
        else:
            held.renewed(started_at)
            pause_s = jittered(RENEW_EVERY_S)


async def _release(store: Leases, held: HeldLease) -> None:
    """Give the lease back, so that nobody has to wait until it lapses; failing costs only that."""
    try:
        async with asyncio.timeout(RELEASE_TIMEOUT_S):
            await store.release(held.lease)
    except (Transient, TimeoutError) as error:
        log.warning("lease.release_failed", scope=held.scope, error=str(error) or "timeout")
