"""`ctl hold`: keep a backup whatever the rules say, or let it go again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agent.wire.operations import Kind
from agent.wire.specs import HoldSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import require_backup
from ctl.options import global_options, wait_options, yes_option
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("hold")
@click.argument("name")
@click.argument("reason", required=False)
@click.option("--release", is_flag=True, help="It may be deleted again.")
@yes_option
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    name: str,
    reason: str | None,
    release: bool,
    yes: bool,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Hold the backup NAME for a REASON: nothing deletes it until it is released.

    The hold lies on the storage beside the backup, and outlives the control database.
    """
    if release == bool(reason):
        raise click.UsageError("give either a REASON or --release")

    async def run(session: Session) -> Result:
        backup = await require_backup(session, name)
        if release and backup.hold is not None:
            view = f"The backup {name} is held: {backup.hold}"
            if not session.output.confirm(view, "Release it?", yes=yes):
                return Result({"backup": name, "hold": backup.hold}, "it is still held")
        operation = await submit(session, Kind.HOLD, HoldSpec(name=name, hold=reason))
        done = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
        data = {**brief(done), "backup": name, "hold": reason}
        if not done.state.is_terminal:
            return Result(data, brief_text(done))
        held = f"is held: {reason}" if reason else "is no longer held"
        return Result(data, f"The backup {name} {held}")

    invocation.perform(run)
