"""`ctl cancel`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.errors import Conflict, NotFound, Refused
from ctl.cancelling import cancel
from ctl.follow import label
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options, wait_options

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("cancel")
@click.argument("which", metavar="[NAME|OP_ID]", required=False)
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    which: str | None,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Cancel what runs: a backup, a verification, a proof, an export. Needs its name or op_id where
    more than one operation is in progress. A restore that has begun is not cancelled: half of one
    helps nobody."""

    async def run(session: Session) -> Result:
        active = await session.operations.active()
        if which is not None:
            active = [op for op in active if which in (op.id, op.name)]
        if not active:
            what = f"no operation {which}" if which is not None else "nothing"
            raise NotFound(f"{what} is in progress", hint="'ctl status' shows what is")
        if len(active) > 1:
            listed = ", ".join(f"{label(op)} ({op.id})" for op in active)
            raise Conflict(f"several are in progress: {listed}", hint="name one by its op_id")
        (operation,) = active
        if operation.kind.writes_data and operation.lead_epoch:
            raise Refused(
                f"the {label(operation)} has begun, and half of one helps nobody",
                hint="let it end; 'ctl status' shows how far it is",
            )
        return await cancel(session, operation, wait=wait, wait_time_s=wait_time)

    invocation.perform(run)
