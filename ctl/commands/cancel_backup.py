"""`ctl cancel-backup`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.errors import NotFound
from agent.wire.operations import Kind
from ctl.cancelling import cancel
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options, wait_options

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
        return await cancel(session, operation, wait=wait, wait_time_s=wait_time)

    invocation.perform(run)
