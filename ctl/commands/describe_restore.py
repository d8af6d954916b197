"""`ctl describe-restore`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.wire.operations import Kind, Operation
from ctl.commands.describe_backup import collections_of
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import require_restore
from ctl.options import global_options
from ctl.render import as_yaml, moment

if TYPE_CHECKING:
    from ctl.session import Session


@click.command("describe-restore")
@click.argument("name")
@click.option("--with-collections", is_flag=True, help="Figures of the backup's collections, too.")
@global_options
@pass_invocation
def command(invocation: Invocation, name: str, with_collections: bool) -> None:
    """Show everything known of a restore: what it was asked for, and what became of it."""

    async def run(session: Session) -> Result:
        operation = await require_restore(session, name)
        described = describe(operation)
        if with_collections:
            described["backup_collections"] = await _backed_up(session, operation)
        return Result(described, as_yaml(described))

    invocation.perform(run)


async def _backed_up(session: Session, restore: Operation) -> dict[str, Any]:
    """What the backup held, by its replica sets; nothing where another cluster made it."""
    backup = restore.spec.get("backup")
    made = None if backup is None else await session.operations.find(backup, Kind.BACKUP)
    return collections_of(made)


def describe(operation: Operation) -> dict[str, Any]:
    """Everything, under the names that `restore` and `list` use."""
    return {
        "name": operation.name,
        "op_id": operation.id,
        "status": operation.state.value,
        "backup": operation.spec.get("backup"),
        "requested_at": moment(operation.requested_at),
        "requested_by": operation.requested_by,
        "finished_at": moment(operation.finished_at) if operation.finished_at else None,
        "error": operation.error.to_json() if operation.error is not None else None,
        "spec": operation.spec,
        "result": operation.result,
        "replsets": [
            {
                "name": part.replset,
                "status": part.state.value,
                "node": part.node,
                "attempts": part.attempts,
                "error": part.error.to_json() if part.error is not None else None,
                **part.result,
            }
            for part in operation.parts
        ],
        "history": [entry.to_json() for entry in operation.history],
    }
