"""`ctl oplog-replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.wire.operations import Kind, Operation
from agent.wire.optime import parse_target
from agent.wire.specs import OplogReplaySpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import (
    dry_run_option,
    global_options,
    remapping_option,
    wait_options,
    yes_option,
)
from ctl.render import as_yaml, optime
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("oplog-replay")
@click.option("--start", required=True, metavar="T", help="From after this moment.")
@click.option("--end", required=True, metavar="T", help="To this moment, inclusive.")
@remapping_option
@dry_run_option
@yes_option
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    start: str,
    end: str,
    replset_remapping: dict[str, str] | None,
    dry_run: bool,
    yes: bool,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Apply what was archived between two moments to the data as it is, indexes included.

    For data that was restored by other means up to --start. What is there is overwritten by what
    the oplog says; nothing is dropped that the oplog does not drop.
    """
    spec = OplogReplaySpec(
        start=parse_target(start),
        end=parse_target(end),
        replset_remapping=replset_remapping or {},
        dry_run=dry_run,
    )
    if spec.start >= spec.end:
        raise click.UsageError(f"--end ({spec.end}) has to be after --start ({spec.start})")

    async def run(session: Session) -> Result:
        await require_storage(session)
        words = f"The oplog from {optime(spec.start)} to {optime(spec.end)} will be applied here."
        if not dry_run and not session.output.confirm(words, "Replay?", yes=yes):
            return Result({"status": "declined"}, "nothing was replayed")
        operation = await submit(session, Kind.OPLOG_REPLAY, spec)
        # The plan is all that a dry run is for.
        operation = await carry_out(session, operation, wait=wait or dry_run, wait_time_s=wait_time)
        return _result(operation, spec)

    invocation.perform(run)


def _result(operation: Operation, spec: OplogReplaySpec) -> Result:
    if spec.dry_run and operation.state.is_terminal:
        plan = operation.result.get("plan", {})
        data: dict[str, Any] = {
            **brief(operation),
            "backup": None,
            "start": spec.start.to_json(),
            "dry_run": True,
            "plan": plan,
        }
        return Result(data, f"Nothing was changed; the replay would do this:\n{as_yaml(plan)}")
    data = {
        **brief(operation),
        "backup": None,  # as a restore tells which; a replay begins from what is there
        "start": spec.start.to_json(),
        "restored_to": spec.end.to_json(),
        "replsets": [
            {"name": part.replset, "status": part.state.value, "node": part.node, **part.result}
            for part in operation.parts
        ],
    }
    if not operation.state.is_terminal:
        return Result(data, brief_text(operation))
    applied = sum(int(part.result.get("operations_applied", 0)) for part in operation.parts)
    words = f"Replayed {applied} operations, to {optime(spec.end)}"
    for part in operation.parts:
        for warning in part.result.get("warnings", ()):
            words += f"\nWarning: {part.replset}: {warning}"
    return Result(data, words)
