"""Writing a command down and, if asked, waiting for it: what every verb that acts does."""

from __future__ import annotations

import getpass
import socket
from typing import TYPE_CHECKING, Any

from agent.wire.operations import Kind, Operation
from agent.wire.record import Record
from ctl.follow import follow, headline, label

if TYPE_CHECKING:
    from ctl.session import Session


def whoami() -> str:
    """Who asks, for the operation's history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


async def submit(session: Session, kind: Kind, spec: Record, *, queue: bool = False) -> Operation:
    """Write the operation down. Raises `Conflict` when another one is in progress."""
    operation = await session.operations.submit(
        kind, spec.to_document(), requested_by=whoami(), queue=queue
    )
    await _warn_if_nobody_is_there(session, operation)
    return operation


async def carry_out(
    session: Session, operation: Operation, *, wait: bool, wait_time_s: float | None
) -> Operation:
    """Wait for the end if that was asked for; the operation as it was seen last."""
    if wait or wait_time_s is not None:
        return await follow(session, operation, wait_time_s)
    return operation


def brief(operation: Operation) -> dict[str, Any]:
    """What is known at once."""
    return {
        "name": operation.name,
        "op_id": operation.id,
        "status": operation.state.value,
    }


def brief_text(operation: Operation) -> str:
    """The same for a person."""
    queued = ", queued behind the operation in progress" if operation.queued else ""
    return (
        f"{headline(operation)} requested [op id: {operation.id}]{queued}\n"
        "'ctl status' shows how far it is"
    )


async def _warn_if_nobody_is_there(session: Session, operation: Operation) -> None:
    if not await session.nodes.live():
        session.output.note(
            f"Warning: no agent is alive; the {label(operation)} starts when one is"
        )
