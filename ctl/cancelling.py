"""Asking that an operation stop, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.wire.operations import Operation, State
from ctl.exit_codes import OperationFailed
from ctl.follow import follow, headline, label
from ctl.invocation import Result
from ctl.submission import brief

if TYPE_CHECKING:
    from ctl.session import Session


async def cancel(
    session: Session, operation: Operation, *, wait: bool, wait_time_s: float | None
) -> Result:
    """Ask, and wait for its end where that is wanted. Raises `Refused` where it is too late."""
    operation = await session.operations.request_cancel(operation.id)
    words = f"Cancellation of {label(operation)} requested"
    if operation.state is State.CANCELLED:
        words = f"{headline(operation)} cancelled"
    elif wait or wait_time_s is not None:
        try:
            operation = await follow(session, operation, wait_time_s)
        except OperationFailed:
            operation = await session.operations.get(operation.id)
            if operation.state is not State.CANCELLED:
                raise
        words = f"{headline(operation)} {operation.state.value}"
        if operation.state is State.DONE:
            words += ": it was complete before it could be cancelled"
    data = brief(operation)
    return Result({"op_id": data["op_id"], "status": data["status"], **data}, words)
