"""Holding leases while something is done, and stopping in time when they cannot be held.

`Holder.hold` renews in the background. Two things can go wrong, and both end the body with
`LeaseLost`: somebody else owns the lease now (the store says so), or no renewal *succeeded* for so
long that somebody else may own it soon (the store is unreachable, or this process was stopped).
For the second the holder keeps its own deadline, counted on a clock that goes on while the machine
sleeps, from the *start* of the last successful renewal: it is over before the server lets anybody
else in.

The renewer needs the event loop to run; a body that wakes up from SIGSTOP may run first. So every
durable act is preceded by `check()`, which looks at the deadline itself.

An agent holds several leases for as long as it lives. So whichever falls due first takes the others
along, in one write: they are due again as if each had renewed itself. That is all they share. Each
has its own renewer, which goes on if the one that took it along fails or ends, and where a joint
write finds that one of them is somebody else's, each finds out about its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import structlog

from agent.clock import Clock, jittered
from agent.errors import LeaseLost, TidelogError, Transient, root_cause
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

    async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
        """Whether all are still their owners'. Raises `Transient`: then nothing is known."""

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
        self._due_at = asked_at + jittered(RENEW_EVERY_S)
        self._lost: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it is over."""
        return self._lost is not None or self.remaining_s <= 0

    @property
    def remaining_s(self) -> float:
        """Until this holder must have stopped, unless it renews before."""
        return self._deadline - self._clock.monotonic()

    @property
    def due_in_s(self) -> float:
        """Until it should be renewed; the end of the time that it is held, if that is sooner."""
        return max(0.0, min(self._due_at - self._clock.monotonic(), self.remaining_s))

    def check(self) -> None:
        """To be called before every durable act. Raises `LeaseLost`."""
        if self._lost is None and self.remaining_s <= 0:
            self._lost = (
                f"the lease {self.scope} of epoch {self.epoch} could not be renewed in time"
            )
        if self._lost is not None:
            raise LeaseLost(self._lost)

    def renewed(self, started_at: float) -> None:
        """A renewal that began then has succeeded. Too late a one does not revive the lease, and
        of two at once the one that began first takes nothing away from the other. All counts from
        the beginning: who has been answered late asks again at once, while there is time left."""
        self.check()
        self._deadline = max(self._deadline, started_at + TTL_S - MARGIN_S)
        self._due_at = started_at + jittered(RENEW_EVERY_S)

    def put_off(self, seconds: float) -> None:
        """A renewal has failed: it is due again after so long."""
        self._due_at = self._clock.monotonic() + seconds

    def lose(self, why: str) -> None:
        """It is known to be over."""
        self._lost = self._lost or why


async def renew(store: Leases, clock: Clock, due: HeldLease, held: Iterable[HeldLease]) -> None:
    """Renew the one that is due, and of all that are `held` those that are not lost. Raises
    `LeaseLost` of the one that is due, or `Transient`."""
    due.check()
    together = [one for one in held if one is due or not one.is_lost]
    started_at = clock.monotonic()
    if await store.renew_all([one.lease for one in together]):
        for one in together:
            with suppress(LeaseLost):  # of another one, perhaps
                one.renewed(started_at)
        due.check()
        return
    started_at = clock.monotonic()
    await store.renew(due.lease)
    due.renewed(started_at)


class Holder:
    """Holds the leases of one agent."""

    def __init__(self, store: Leases, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._held: set[HeldLease] = set()

    @asynccontextmanager
    async def hold(self, lease: Lease) -> AsyncIterator[HeldLease]:
        """Renew a lease that was just acquired while the body runs, and release it afterwards.

        The body is cancelled when the lease is lost, and `LeaseLost` raised; an error of the body
        comes out as it is (of several, the one to record). A lost lease is not released.
        """
        held = HeldLease(lease, self._clock)
        self._held.add(held)
        try:
            async with TaskGroup() as group:
                renewer = group.create_task(self._renew(held), name=f"renew {lease.id}")
                await fault_point("lease.acquired")
                try:
                    yield held
                finally:
                    renewer.cancel()
        except BaseExceptionGroup as errors:
            cause = root_cause(errors)
            raise cause from cause.__cause__
        finally:
            self._held.discard(held)
            if not held.is_lost:
                await self._release(held)

    async def _renew(self, held: HeldLease) -> None:
        while True:
            while (pause_s := held.due_in_s) > 0:
                await self._clock.sleep(pause_s)  # taken along meanwhile, it is due later
            try:
                async with asyncio.timeout(held.remaining_s):
                    await renew(self._store, self._clock, held, self._held)
            except LeaseLost as error:
                held.lose(str(error))
                raise
            except (Transient, TimeoutError) as error:
                log.warning("lease.renewal_failed", scope=held.scope, error=str(error) or "timeout")
                held.put_off(RETRY_S)

    async def _release(self, held: HeldLease) -> None:
        """Give it back, so that nobody has to wait until it lapses; failing costs only that."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._store.release(held.lease)
        except (TidelogError, TimeoutError) as error:
            log.warning("lease.release_failed", scope=held.scope, error=str(error) or "timeout")
