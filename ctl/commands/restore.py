"""`ctl restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.errors import Conflict
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.specs import RestoreSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import (
    dry_run_option,
    global_options,
    queue_option,
    remapping_option,
    selection_options,
    wait_options,
    yes_option,
)
from ctl.render import as_yaml, duration, optime
from ctl.restore_target import build_options, check_target, choose_backup
from ctl.restore_view import what_goes
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from agent.wire.backups import Backup
    from ctl.session import Session


@click.command("restore")
@click.argument("name", required=False)
@click.option(
    "--time",
    "time_",
    metavar="T",
    help="To this moment: 2026-01-02T03:04:05, 1767323045 (the end of that second) or T,I.",
)
@click.option("--base-snapshot", metavar="NAME", help="With --time: begin from this backup.")
@selection_options
@click.option("--profile", metavar="P", help="Take the backup from this storage profile.")
@click.option("--ns-from", metavar="DB.COLL", help="With --ns-to: restore this collection…")
@click.option("--ns-to", metavar="DB.COLL", help="…under this name.")
@remapping_option
@click.option("--num-parallel-collections", type=click.IntRange(1), metavar="N")
@click.option(
    "--num-insertion-workers",
    "--num-insertion-workers-per-collection",
    type=click.IntRange(1),
    metavar="N",
)
@click.option("--index-commit-quorum", metavar="Q", help="majority, votingMembers or a number.")
@queue_option
@dry_run_option
@yes_option
@wait_options
@global_options
@pass_invocation
def command(invocation: Invocation, /, *, name: str | None, **flags: Any) -> None:
    """Restore the backup NAME, or the cluster as it was at --time.

    A full restore makes the cluster equal to the backup: what is not in the backup is dropped.
    With --ns, --exclude-ns or --ns-from only what is named is touched.
    """
    dry_run, yes, queue = flags["dry_run"], flags.pop("yes"), flags.pop("queue")
    wait, wait_time = flags.pop("wait"), flags.pop("wait_time")
    target, base = check_target(name, flags.pop("time_"), flags.pop("base_snapshot"))
    options = build_options(**flags)

    async def run(session: Session) -> Result:
        if options["profile"] is not None:
            await require_storage(session, options["profile"])
        backup = await choose_backup(session, base, target)
        spec = RestoreSpec(backup=backup.id, time=target, **options)
        if not dry_run:
            if not queue:
                await _refuse_if_busy(session)
            view = await what_goes(session, backup, spec)
            if not session.output.confirm(view, "Restore?", yes=yes):
                return Result({"status": "declined"}, "nothing was restored")
        operation = await submit(session, Kind.RESTORE, spec, queue=queue)
        # The plan is all that a dry run is for.
        operation = await carry_out(session, operation, wait=wait or dry_run, wait_time_s=wait_time)
        return _result(operation, backup, spec)

    invocation.perform(run)


async def _refuse_if_busy(session: Session) -> None:
    # The server's own check comes with the command; nobody should answer a question in vain.
    for operation in await session.operations.active():
        if operation.kind.is_exclusive:
            raise Conflict(
                f"another operation in progress: {operation.kind.value} {operation.name}"
                f" ({operation.id})"
            )


def _result(operation: Operation, backup: Backup, spec: RestoreSpec) -> Result:
    over = operation.state.is_terminal
    if spec.dry_run and over:
        plan = operation.result.get("plan", {})
        data = {**brief(operation), "backup": backup.id, "dry_run": True, "plan": plan}
        return Result(data, f"Nothing was changed; the restore would do this:\n{as_yaml(plan)}")
    target = spec.time or backup.last_write
    data = {
        **brief(operation),
        "backup": backup.id,
        "restored_to": operation.result.get("restored_to") or target.to_json(),
        "replsets": [
            {"name": part.replset, "status": part.state.value, "node": part.node, **part.result}
            for part in operation.parts
        ],
    }
    if not over:
        return Result(data, brief_text(operation))
    return Result(data, _summary(operation, backup, target))


def _summary(operation: Operation, backup: Backup, target: OpTime) -> str:
    words = f"Restore {operation.name} done"
    if operation.finished_at is not None:
        took = (operation.finished_at - operation.requested_at).total_seconds()
        words += f" in {duration(took)}"
    words += f": backup {backup.id}, as of {optime(target)}"
    for part in operation.parts:
        words += "".join(
            f"\nWarning: {part.replset}: {warning}" for warning in part.result.get("warnings", ())
        )
    return words
