"""Leading one operation: from the command to its end, in whatever state it is found.

One agent of the lead replica set does it, under the lead lease. It moves the operation through the
table step by step, each a compare-and-set of its own epoch; between two steps it waits for what the
workers write. If it dies, the next lead goes on from the state it finds: nothing is kept here that
the document does not have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog

from agent.coordination.lease import HeldLease
from agent.errors import (
    Conflict,
    LeaseLost,
    OperationCancelled,
    Permanent,
    TidelogError,
    Transient,
    UnsupportedVersion,
)
from agent.faults import fault_point
from agent.operations.board import Board
from agent.operations.context import LeadContext, Logger, OperationKind, Services
from agent.operations.machine import (
    MAX_ATTEMPTS,
    Step,
    Verdict,
    attempted,
    decide,
    error_record,
    patiently,
    verdict,
    watched,
)
from agent.operations.parts import PartWatch
from agent.wire.leases import work_scope
from agent.wire.nodes import NodeStatus
from agent.wire.operations import ErrorRecord, Kind, Operation, State
from agent.wire.settings import Settings

CHOOSE_WITHIN_S: Final = 600.0
ADVANCE_WITHIN_S: Final = 120.0
FINISH_WITHIN_S: Final = 6 * 3600.0
STOPPED_WITHIN_S: Final = 20.0
"""How long a cancelled operation waits for its workers; later ones are fenced off."""
TICK_S: Final = 3.0
HAND_OVER_WITHIN_S: Final = 2.0
FORGIVEN_AFTER_S: Final = 60.0
PUBLISHING_ATTEMPTS: Final = 4 * MAX_ATTEMPTS
"""Of an operation all of whose work is done, so that giving up would waste it."""

T = TypeVar("T")


@dataclass
class Lead:
    """One agent leading one operation."""

    services: Services
    kinds: Mapping[Kind, OperationKind]
    board: Board
    held: HeldLease
    operation: Operation
    log: Logger = field(default_factory=structlog.stdlib.get_logger)

    def __post_init__(self) -> None:
        self._parts = PartWatch(self.services.clock)
        self._advanced_for: Any = None
        self._cancelling_since: float | None = None
        self._look_used = self.board.look
        self._learnt_before = self.board.asked
        self._started = self.services.clock.monotonic()
        self._is_forgiven = False

    async def run(self) -> None:
        """Lead it to its end. Raises `Superseded` when somebody else leads on, and a `Transient`
        or unexpected error after which another attempt should be made."""
        log = self.services.operations
        op_id, node, epoch = self.operation.id, self.services.node.id, self.held.epoch
        with structlog.contextvars.bound_contextvars(
            op_id=op_id, kind=str(self.operation.kind), name=self.operation.name, epoch=epoch
        ):
            await self._learn(lambda: log.take_lead(op_id, node, epoch), what="take_lead")
            self.log.info("operation.led", state=str(self.operation.state))
            try:
                await fault_point("operation.led")
                while not self.operation.state.is_terminal:
                    self.held.check()
                    await self._take_step()
            except asyncio.CancelledError:
                await self._hand_over()
                raise
            self._log_end()

    async def _hand_over(self) -> None:
        """The agent stops: let the next lead begin unburdened, if there is time."""
        if self.held.is_lost or self.operation.state.is_terminal:
            return
        try:
            async with asyncio.timeout(HAND_OVER_WITHIN_S):
                await self.services.operations.hand_over_lead(
                    self.operation.id, self.held.epoch, note="the agent stops"
                )
            self.log.info("operation.handed_over")
        except (TidelogError, TimeoutError) as error:
            self.log.warning("operation.hand_over_failed", error=str(error) or "timeout")

    async def _take_step(self) -> None:
        before = self.operation
        error = await attempted(self._step)
        if error is None:
            return
        if isinstance(error, Conflict):
            # Either the document is not in the state that was thought, and we look again; or it
            # is a refusal of the kind's own.
            await self._read()
            if self.operation.state is not before.state:
                return
        await self._after(error)

    async def _after(self, error: Exception) -> None:
        outcome = verdict(error)
        if outcome is Verdict.CANCELLED:
            await self._read()
            if not self.operation.cancel_requested:
                await self._fail(error)
        elif outcome is Verdict.FAILED:
            await self._fail(error)
        elif outcome is Verdict.RETRY and not self.held.is_lost:
            if self.operation.attempts >= self._allowed_attempts():
                await self._fail(error)
                return
            self.log.warning("operation.attempt_failed", error=str(error))
            text = f"attempt {self.operation.attempts} failed: {error}"
            await self._write(
                lambda: self.services.operations.note(self.operation.id, self.held.epoch, text),
                what="note",
            )
            raise error
        else:
            raise error

    def _check_attempts(self) -> None:
        if self.operation.attempts > self._allowed_attempts():
            raise Permanent(
                f"gave up after {self.operation.attempts - 1} attempts to lead it",
                hint=f"'ctl logs -i {self.operation.id}' shows what each attempt met",
            )

    def _allowed_attempts(self) -> int:
        publishing = self.operation.state is State.PUBLISHING
        return PUBLISHING_ATTEMPTS if publishing else MAX_ATTEMPTS

    async def _step(self) -> None:
        self._check_attempts()
        step = decide(self.operation)
        if step is Step.CHOOSE:
            await self._choose()
        elif step is Step.AWAIT_WORKERS:
            await self._await_parts()
        elif step is Step.PREPARE:
            await self._move(State.PREPARING)
        elif step is Step.RUN:
            await self._move(State.RUNNING)
        elif step is Step.AWAIT_WORK:
            await self._advance()
            await self._await_parts()
        elif step is Step.PUBLISH:
            await self._move(State.PUBLISHING)
        elif step is Step.FINISH:
            await self._finish()
        elif step is Step.CANCEL:
            await self._cancel()
        elif step is Step.FAIL:
            await self._fail_by_part()

    async def _choose(self) -> None:
        log, op_id, epoch = self.services.operations, self.operation.id, self.held.epoch
        settings, version = await self._write(self.services.settings.read, what="settings")
        kind, context = self._kind(), self._context(settings)
        replsets = await self._cancellable(
            lambda: kind.choose(context, self.operation), within_s=CHOOSE_WITHIN_S, what="choose"
        )
        await self._learn(
            lambda: log.set_parts(op_id, epoch, replsets, settings=settings, version=version),
            what="set_parts",
        )
        await self._move(State.ELECTING)

    async def _advance(self) -> None:
        """Let the kind react, once for each change of the parts that is more than progress."""
        parts = [
            (part.replset, part.state, part.epoch, part.result) for part in self.operation.parts
        ]
        if parts == self._advanced_for:
            return
        kind, context, operation = self._kind(), self._context(), self.operation
        await self._cancellable(
            lambda: kind.advance(context, operation), within_s=ADVANCE_WITHIN_S, what="advance"
        )
        self._advanced_for = parts

    async def _finish(self) -> None:
        kind, context = self._kind(), self._context()
        try:
            async with asyncio.timeout(FINISH_WITHIN_S):
                result = await kind.finish(context, self.operation)
        except TimeoutError:
            raise Transient(f"publishing took longer than {FINISH_WITHIN_S:g} s") from None
        await self._move(State.DONE, result=result)

    async def _cancel(self) -> None:
        """End it once the workers have stopped, or cannot be waited for any longer."""
        now = self.services.clock.monotonic()
        if self._cancelling_since is None:
            self._cancelling_since = now
        working = [
            part.replset
            for part in self.operation.parts
            if not part.state.is_terminal
            and work_scope(part.replset, self.operation.kind) in self.board.held
        ]
        if working and now - self._cancelling_since < STOPPED_WITHIN_S:
            await self._look(at_most_s=TICK_S)
            return
        await self._move(State.CANCELLED)

    async def _await_parts(self) -> None:
        nodes: list[NodeStatus] = []
        if self._parts.has_waiting(self.operation, self.board.held):
            nodes = await self._write(self.services.nodes.all, what="nodes")
        try:
            self._parts.check(self.operation, self.board.held, nodes)
        except Transient as error:
            await self._fail(error)
            return
        await self._look(at_most_s=TICK_S)

    async def _look(self, *, at_most_s: float) -> None:
        """Wait until there is something newer than what we know, and know it."""
        await self.board.after(self._look_used, at_most_s=at_most_s)
        self._look_used = self.board.look
        await self._forgive()
        seen = self.board.operations.get(self.operation.id)
        # What was read while our own write was under way may lack it. Times cannot tell: those of
        # two writes at once come in any order, and a new primary's clock may be behind.
        if seen is None or self._look_used <= self._learnt_before:
            await self._read()
        else:
            self.operation = seen
        if self.operation.lead_epoch != self.held.epoch:
            raise LeaseLost(f"{self.operation.lead_node} leads the {self.operation.kind} now")

    async def _forgive(self) -> None:
        """Who has led for so long has not failed: attempts are counted anew."""
        if self._is_forgiven or self.services.clock.monotonic() - self._started < FORGIVEN_AFTER_S:
            return
        self._is_forgiven = True
        await self._write(
            lambda: self.services.operations.forgive(self.operation.id, self.held.epoch),
            what="forgive",
        )

    async def _move(
        self,
        after: State,
        *,
        result: dict[str, Any] | None = None,
        error: ErrorRecord | None = None,
    ) -> None:
        before = self.operation.state
        await self._learn(
            lambda: self.services.operations.transition(
                self.operation.id,
                before,
                after,
                epoch=self.held.epoch,
                result=result,
                error=error,
            ),
            what=f"move to {after}",
        )
        self.log.debug("operation.transitioned", before=str(before), after=str(after))
        await fault_point("operation.transitioned")

    async def _fail_by_part(self) -> None:
        bad = next(p for p in self.operation.parts if p.state in (State.FAILED, State.CANCELLED))
        error = bad.error or ErrorRecord(
            type="PartEnded", message=f"the part of {bad.replset} was {bad.state}", node=bad.node
        )
        await self._move(State.FAILED, error=error)

    async def _fail(self, error: BaseException) -> None:
        if not self.operation.state.is_terminal:
            await self._move(State.FAILED, error=error_record(error, self.services.node.id))

    async def _read(self) -> None:
        await self._learn(lambda: self.services.operations.get(self.operation.id), what="read")

    async def _learn(self, call: Callable[[], Awaitable[Operation]], *, what: str) -> None:
        """Read or write the operation, and know what it is now."""
        self.operation = await self._write(call, what=what)
        self._learnt_before = self.board.asked

    async def _write(self, call: Callable[[], Awaitable[T]], *, what: str) -> T:
        return await patiently(self.held, self.services.clock, call, what=what)

    async def _cancellable(
        self, work: Callable[[], Awaitable[T]], *, within_s: float, what: str
    ) -> T:
        return await watched(work, self._watch_cancel, within_s=within_s, what=what)

    async def _watch_cancel(self) -> None:
        look = self.board.look
        while True:
            seen = self.board.operations.get(self.operation.id)
            if seen is not None and seen.cancel_requested:
                raise OperationCancelled(f"{self.operation.kind} was cancelled")
            await self.board.after(look, at_most_s=60.0)
            look = self.board.look

    def _kind(self) -> OperationKind:
        kind = self.kinds.get(self.operation.kind)
        if kind is None:
            raise UnsupportedVersion(
                f"this agent does not know how to carry out {self.operation.kind}",
                hint="upgrade the agents",
            )
        return kind

    def _context(self, settings: Settings | None = None) -> LeadContext:
        pinned = settings or Settings.from_document(self.operation.settings)
        return LeadContext(self.services, pinned, self.held, self.log)

    def _log_end(self) -> None:
        operation = self.operation
        details: dict[str, Any] = {"state": str(operation.state), "attempts": operation.attempts}
        if operation.finished_at is not None:
            taken = operation.finished_at - operation.requested_at
            details["duration_s"] = round(taken.total_seconds(), 3)
        if operation.error is not None:
            self.log.error(
                "operation.failed",
                **details,
                error=operation.error.message,
                error_type=operation.error.type,
                hint=operation.error.hint,
            )
        else:
            self.log.info("operation.finished", **details)
