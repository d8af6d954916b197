"""`ctl cancel-backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.errors import NotFound
from agent.wire.operations import Kind, State
from ctl.exit_codes import OperationFailed
from ctl.follow import follow
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options, wait_options
from ctl.submission import brief

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("cancel-backup")
@wait_options
@global_options
@pass_invocation
def command(invocation: Invocation, wait: bool, wait_time: float | None) -> None:
    """Cancel the backup that is running; nothing of it is kept."""

    async def run(session: Session) -> Result:
        backups = [op for op in await session.operations.active() if op.kind is Kind.BACKUP]
        if not backups:
            raise NotFound("no backup is running", hint="'ctl status' shows what is")
        operation = min(backups, key=lambda op: op.queued)
        await session.operations.request_cancel(operation.id)
        words = f"Cancellation of backup {operation.name} requested"
        if wait or wait_time is not None:
            try:
                operation = await follow(session, operation, wait_time)
            except OperationFailed:
                operation = await session.operations.get(operation.id)
                if operation.state is not State.CANCELLED:
                    raise
            words = f"Backup {operation.name} {operation.state.value}"
            if operation.state is State.DONE:
                words += ": it was complete before it could be cancelled"
        data = brief(operation)
        return Result({"op_id": data["op_id"], "status": data["status"], **data}, words)

    invocation.perform(run)
