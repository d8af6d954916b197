"""`ctl verify`: agents look at what is stored, and every backup shows what they found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Group

from agent.wire.operations import Kind, Operation
from agent.wire.optime import parse_target
from agent.wire.specs import VerifySpec
from ctl.exit_codes import OperationFailed
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import require_backup
from ctl.options import Duration, global_options, wait_options
from ctl.proof import prove
from ctl.render import size, table
from ctl.storage_settings import require_a_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ctl.session import Session

_SHOWN = 20


@click.command("verify")
@click.argument("name", required=False)
@click.option("--deep", is_flag=True, help="Read every object and compare its digest.")
@click.option(
    "--max-age",
    type=Duration(),
    metavar="D",
    help="With --deep: what was read within this time is not read again (7d; 0 reads all).",
)
@click.option(
    "--restore", "by_restore", is_flag=True, help="Restore it into a scratch mongod, and ask that."
)
@click.option("--time", "time_", metavar="T", help="With --restore: to this moment, by PITR.")
@click.option("--profile", metavar="P", help="Look on this storage profile.")
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    name: str | None,
    deep: bool,
    max_age: float | None,
    by_restore: bool,
    time_: str | None,
    profile: str | None,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Verify the backup NAME, or all of them and the archived oplog: is each object there, of its
    size, and with --deep what was written? With --restore one backup is restored into a scratch
    mongod on an agent's host and proven there. Exit status 1 if anything is harmed."""
    if time_ is not None and not by_restore:
        raise click.UsageError("--time goes with --restore only")
    if max_age is not None and not deep:
        raise click.UsageError("--max-age goes with --deep only")
    if by_restore and deep:
        raise click.UsageError("--restore and --deep exclude each other: a restore reads all")
    target = parse_target(time_) if time_ is not None else None

    async def run(session: Session) -> Result:
        if name is not None:
            await require_backup(session, name)
        await require_a_storage(session, profile)
        if by_restore:
            return await prove(session, name, target, profile, wait=wait, wait_time_s=wait_time)
        spec = VerifySpec(names=(name,) if name else (), deep=deep, profile=profile)
        if max_age is not None:
            spec = spec.model_copy(update={"max_age_s": max_age})
        operation = await submit(session, Kind.VERIFY, spec)
        operation = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
        data = {**brief(operation), **operation.result}
        if not operation.state.is_terminal:
            return Result(data, brief_text(operation))
        return Result(data, _view(operation), fault=_fault(operation))

    invocation.perform(run)


def _fault(operation: Operation) -> OperationFailed | None:
    if not operation.result.get("harmed"):
        return None
    return OperationFailed(
        _sentence(operation),
        hint="restore from another backup or storage; 'ctl list' says which are harmed",
    )


def _sentence(operation: Operation) -> str:
    found = operation.result
    named = ", ".join(item["name"] for item in found["harmed_backups"][:5])
    words = f"{found['harmed']} of {found['objects']} objects are not what was written"
    if named:
        words += f", and harm the backups {named}"
    for span in found["harmed_ranges"][:3]:
        start, end = span["start"], span["end"]
        words += (
            f"; {span['replset']} cannot be restored to a moment after {start['T']},{start['I']}"
            f" and up to {end['T']},{end['I']}"
        )
    return words


def _view(operation: Operation) -> RenderableType:
    found: dict[str, Any] = operation.result
    words = f"Looked at {found['objects']} objects of {found['backups']} backups"
    if found["level"] == "read":
        words += f", read {size(found['bytes_read'])}"
        if found["not_read_again"]:
            words += f"; {found['not_read_again']} were read and right within --max-age"
    parts: list[RenderableType] = [words]
    if found["out_of_reach"]:
        parts.append(f"Out of reach, no profile leads there: {', '.join(found['out_of_reach'])}")
    if found["problems"]:
        rows = [(item["object"], item["problem"]) for item in found["problems"][:_SHOWN]]
        parts.append(table(("OBJECT~", "PROBLEM~"), rows, indent=2))
    elif found["level"] == "read":
        parts.append("All of it is there and what was written.")
    else:
        parts.append(
            "All of it is there and of its size; --deep reads whether it is what was written."
        )
    return Group(*parts)
