"""`ctl export`: an agent writes a backup as a directory that `mongorestore` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.console import Group

from agent.wire.namespaces import check_patterns
from agent.wire.operations import Kind
from agent.wire.optime import OpTime, parse_target
from agent.wire.specs import ExportSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import Names, global_options, wait_options
from ctl.render import number, optime, size, table
from ctl.restore_target import choose_backup
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ctl.session import Session


@click.command("export")
@click.argument("name")
@click.argument("directory", metavar="DIR")
@click.option("--ns", type=Names(), default=(), help="Only these: db.coll, db.* or db.")
@click.option("--time", "time_", metavar="T", help="As of this moment, by PITR.")
@click.option("--profile", metavar="P", help="Take the backup from this storage profile.")
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    name: str,
    directory: str,
    ns: tuple[str, ...],
    time_: str | None,
    profile: str | None,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Export the backup NAME as a mongodump directory. An agent writes it, on its own host: DIR is
    a path below its export.directory, and must be empty or not exist."""
    ns = () if "*.*" in ns else ns
    check_patterns(ns)
    target = parse_target(time_) if time_ is not None else None

    async def run(session: Session) -> Result:
        if profile is not None:
            await require_storage(session, profile)
        backup = await choose_backup(session, name, target)
        spec = ExportSpec(name=backup.id, directory=directory, ns=ns, time=target, profile=profile)
        operation = await submit(session, Kind.EXPORT, spec)
        operation = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
        found = operation.result
        data = {"backup": backup.id, **brief(operation), **found}
        if not operation.state.is_terminal:
            return Result(data, brief_text(operation))
        at = optime(OpTime.from_document(found["exported_to"]))
        text = (
            f"Exported {backup.id} as of {at}: {number(found['collections'])} collections,"
            f" {size(found['bytes'])}\n  in {found['directory']} on the host of {found['node']}"
        )
        return Result(data, Group(text, *_further(found)))

    invocation.perform(run)


def _further(found: dict[str, Any]) -> list[RenderableType]:
    """What a dump does not say: how collections were sharded, and what was left out."""
    parts: list[RenderableType] = [f"Warning: {text}" for text in found.get("warnings", ())]
    if sharded := found.get("sharded"):
        rows = [(one["ns"], one["key"], "yes" if one["unique"] else "no") for one in sharded]
        parts.append("Shard these first, and restore through a mongos:")
        parts.append(table(("COLLECTION", "KEY~", "UNIQUE"), rows, indent=2))
    return parts
