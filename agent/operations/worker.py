"""Working on one replica set's part: from the bid to the result, whoever began it.

One agent a replica set does it, under the work lease. The part is taken, the lead is waited for
(nothing is touched before every part has a worker), the kind does its work, and the result is
written. What stops the work: the lease is lost, the operation ends or is cancelled, the node is no
longer the primary where only that may act, nothing moved for very long. A transient error ends this
attempt and leaves the part to the next bid, here or elsewhere; so does a stop of this agent, which
does not count as an attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from agent.coordination.lease import HeldLease
from agent.errors import (
    LeaseLost,
    NodeUnavailable,
    OperationCancelled,
    Permanent,
    TidelogError,
    Transient,
)
from agent.faults import fault_point
from agent.operations.board import Board
from agent.operations.context import Logger, OperationKind, PartContext, Services
from agent.operations.machine import (
    MAX_ATTEMPTS,
    Verdict,
    attempted,
    error_record,
    patiently,
    verdict,
    watched,
)
from agent.wire.leases import MARGIN_S, TTL_S
from agent.wire.nodes import Role
from agent.wire.operations import Kind, Operation, Progress, State
from agent.wire.settings import Settings

LEAD_WITHIN_S: Final = 180.0
"""How long a worker that has taken its part waits until all have."""
WORK_WITHIN_S: Final = 14 * 24 * 3600.0
STALLED_AFTER_S: Final = 1800.0
"""Without a sign of life (`report`, `record`, `refresh`) for so long the work is given up."""
REPORT_EVERY_S: Final = 1.0
FORGIVEN_AFTER_S: Final = 60.0
"""Who worked for so long and moved has not failed: earlier attempts are forgotten."""
HAND_OVER_WITHIN_S: Final = 2.0
ROLE_EVERY_S: Final = 1.0
ROLE_UNKNOWN_FOR_S: Final = TTL_S - MARGIN_S
"""As long as a lease that cannot be renewed lasts, the node may leave open what it is. A write that
reaches one that is not the primary any more is refused by it."""
LOOK_S: Final = 60.0

T = TypeVar("T")


async def may_work(services: Services, kind: Kind) -> bool:
    """Whether this node is, at this moment, one that may do it: what writes data is the primary's.
    The registry may be some seconds behind. Raises `NodeUnavailable`."""
    if not kind.writes_data:
        return True
    role, _, _ = await services.node.status()
    return role is Role.PRIMARY


class RoleLost(Transient):
    """The node is no longer what only such a node may do."""


@dataclass
class Worker:
    """One agent working on one part."""

    services: Services
    kind: OperationKind
    board: Board
    held: HeldLease
    operation: Operation
    log: Logger = field(default_factory=structlog.stdlib.get_logger)

    def __post_init__(self) -> None:
        self._clock = self.services.clock
        self._replset = self.services.node.replset
        self._sign_of_life = self._clock.monotonic()
        self._started = self._clock.monotonic()
        self._role_known_at = self._clock.monotonic()
        self._reported_at = 0.0
        self._is_forgiven = False
        self._is_handed_over = False

    async def run(self) -> None:
        """Work until the part is over, or this attempt is. Raises `Superseded` when it is
        somebody else's, and the error after which another attempt should be made."""
        log, node = self.services.operations, self.services.node.id
        with structlog.contextvars.bound_contextvars(
            op_id=self.operation.id,
            kind=str(self.operation.kind),
            name=self.operation.name,
            replset=self._replset,
            epoch=self.held.epoch,
        ):
            op_id = self.operation.id
            self.operation = await self._write(
                lambda: log.take_part(op_id, self._replset, node, self.held.epoch), what="take_part"
            )
            try:
                error = await attempted(self._work)
                if error is not None:
                    await self._after(error)
            except asyncio.CancelledError:
                await self._hand_over("the agent stops")
                raise

    async def _work(self) -> None:
        attempts = self._attempts()
        self.log.info("part.taken", attempts=attempts)
        await fault_point("part.taken")
        if attempts > MAX_ATTEMPTS:
            raise Permanent(
                f"gave up after {attempts - 1} attempts to work on {self._replset}",
                hint=f"'ctl logs -i {self.operation.id}' shows what each attempt met",
            )
        await watched(
            self._await_lead, self._watch, within_s=LEAD_WITHIN_S, what="waiting for the lead"
        )
        await self._update(state=State.RUNNING)
        context = self._context()
        self._sign_of_life = self._clock.monotonic()
        result = await watched(
            lambda: self.kind.work(context), self._watch, within_s=WORK_WITHIN_S, what="the work"
        )
        await self._update(state=State.DONE, result=result)
        self.log.info("part.done", duration_s=round(self._clock.monotonic() - self._started, 3))

    async def _after(self, error: Exception) -> None:
        outcome = verdict(error)
        if self.held.is_lost or outcome is Verdict.STOP:
            raise error
        if outcome is Verdict.CANCELLED:
            self.log.info("part.cancelled")
            await self._update(state=State.CANCELLED)
        elif isinstance(error, RoleLost) or (
            outcome is Verdict.RETRY and not await self._may_write()
        ):
            # Whatever it was that failed first: another primary goes on, and nothing is wrong.
            await self._hand_over(str(error))
            raise error
        elif outcome is Verdict.FAILED or self._attempts() >= MAX_ATTEMPTS:
            self.log.error("part.failed", error=str(error), error_type=type(error).__name__)
            record = error_record(error, self.services.node.id)
            await self._update(state=State.FAILED, error=record)
        else:
            self.log.warning("part.attempt_failed", error=str(error))
            text = f"attempt {self._attempts()} failed: {str(error) or type(error).__name__}"
            await self._update(note=text)
            raise error

    async def _hand_over(self, why: str) -> None:
        """Give the part back in good order, if there is time; else its lease lapses. Once: each
        takes an attempt away, and one that is cancelled is carried out all the same."""
        if self.held.is_lost or self._is_handed_over:
            return
        self._is_handed_over = True
        call = self.services.operations.hand_over_part(
            self.operation.id, self._replset, self.held.epoch, note=f"handed over: {why}"
        )
        try:
            async with asyncio.timeout(HAND_OVER_WITHIN_S):
                await call
            self.log.info("part.handed_over", reason=why)
        except (TidelogError, TimeoutError) as error:
            self.log.warning("part.hand_over_failed", error=str(error) or "timeout")

    async def _await_lead(self) -> None:
        look = 0
        while self.operation.state is not State.RUNNING:
            await self.board.after(look, at_most_s=LOOK_S)
            look = self.board.look
            self.operation = self.board.operations.get(self.operation.id, self.operation)

    async def _watch(self) -> None:
        """Ends the work by raising, when somebody or something wants it to end."""
        look = 0
        asked_at = self._role_known_at = self._clock.monotonic()
        while True:
            await self.board.after(look, at_most_s=ROLE_EVERY_S)
            if self.board.look > look:
                look = self.board.look
                self._check_operation()
            now = self._clock.monotonic()
            if now - self._sign_of_life > STALLED_AFTER_S:
                raise NodeUnavailable(f"nothing moved for {STALLED_AFTER_S / 60:g} minutes")
            if now - asked_at >= ROLE_EVERY_S:
                asked_at = now
                await self._check_role()

    def _check_operation(self) -> None:
        seen = self.board.operations.get(self.operation.id)
        if seen is None:
            raise LeaseLost(f"the {self.operation.kind} is over")
        if seen.cancel_requested:
            raise OperationCancelled(f"the {self.operation.kind} was cancelled")
        part = seen.part(self._replset)
        if part is not None and part.epoch > self.held.epoch:
            raise LeaseLost(f"{part.node} works on {self._replset} now")

    async def _may_write(self) -> bool:
        """Whether nothing is known that keeps this node from going on."""
        try:
            return await may_work(self.services, self.operation.kind)
        except Transient:
            return True

    async def _check_role(self) -> None:
        try:
            may = await may_work(self.services, self.operation.kind)
        except Transient as error:
            # Busy, perhaps: one answer that does not come is no reason to begin again elsewhere.
            if self._clock.monotonic() - self._role_known_at >= ROLE_UNKNOWN_FOR_S:
                raise
            self.log.debug("part.role_unknown", error=str(error))
            return
        if not may:
            raise RoleLost(f"{self.services.node.host} is not the primary any more")
        self._role_known_at = self._clock.monotonic()

    def _context(self) -> PartContext:
        return PartContext(
            services=self.services,
            settings=Settings.from_document(self.operation.settings),
            operation=self.operation,
            replset=self._replset,
            lease=self.held,
            log=self.log,
            refresh=self._refresh,
            report=self._report,
            record=self._record,
        )

    async def _refresh(self) -> Operation:
        self._sign_of_life = self._clock.monotonic()
        self.operation = await self._write(
            lambda: self.services.operations.get(self.operation.id), what="refresh"
        )
        if self.operation.cancel_requested:
            raise OperationCancelled(f"the {self.operation.kind} was cancelled")
        if self.operation.state.is_terminal:
            raise LeaseLost(f"the {self.operation.kind} is over: {self.operation.state}")
        return self.operation

    async def _report(self, progress: Progress) -> None:
        """Write progress, at most once a second; what cannot be written now is written later."""
        self.held.check()
        now = self._sign_of_life = self._clock.monotonic()
        if now - self._reported_at < REPORT_EVERY_S:
            return
        self._reported_at = now
        attempts = None
        if not self._is_forgiven and now - self._started >= FORGIVEN_AFTER_S:
            self._is_forgiven, attempts = True, 1
        try:
            self.operation = await self.services.operations.update_part(
                self.operation.id,
                self._replset,
                self.held.epoch,
                progress=progress,
                attempts=attempts,
            )
        except Transient as error:
            self.log.debug("part.progress_not_written", error=str(error))

    async def _record(
        self, fields: dict[str, Any], *, note: str | None = None, progress: Progress | None = None
    ) -> None:
        self._sign_of_life = self._clock.monotonic()
        await self._update(result=fields, note=note, progress=progress)

    async def _update(self, **changes: Any) -> None:
        self.operation = await self._write(
            lambda: self.services.operations.update_part(
                self.operation.id, self._replset, self.held.epoch, **changes
            ),
            what="update_part",
        )

    async def _write(self, call: Callable[[], Awaitable[T]], *, what: str) -> T:
        return await patiently(self.held, self._clock, call, what=what)

    def _attempts(self) -> int:
        part = self.operation.part(self._replset)
        return part.attempts if part is not None else 0
