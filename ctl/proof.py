"""`ctl verify --restore`: a backup is restored into a scratch server, and what that found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from agent.errors import NotFound
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.specs import ProveSpec
from ctl.exit_codes import OperationFailed
from ctl.invocation import Result
from ctl.places import read_places
from ctl.render import duration, number, optime, table
from ctl.restore_target import choose_backup
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup
    from ctl.session import Session

_SHOWN = 20


async def prove(
    session: Session,
    name: str | None,
    target: OpTime | None,
    profile: str | None,
    *,
    wait: bool,
    wait_time_s: float | None,
) -> Result:
    """Ask for the proof of one backup: the named one, the newest before the wanted moment, or the
    newest full one."""
    backup = await _chosen(session, name, target)
    spec = ProveSpec(name=backup.id, time=target, profile=profile)
    operation = await submit(session, Kind.PROVE, spec)
    operation = await carry_out(session, operation, wait=wait, wait_time_s=wait_time_s)
    data = {"backup": backup.id, **brief(operation), **operation.result}
    if not operation.state.is_terminal:
        return Result(data, brief_text(operation))
    return Result(data, _view(operation), fault=_fault(operation))


async def _chosen(session: Session, name: str | None, target: OpTime | None) -> Backup:
    if name is not None or target is not None:
        return await choose_backup(session, name, target)
    places = await read_places(session)
    full = [
        backup
        for backup in await session.catalog.backups()
        if not backup.is_selective and places.is_within_reach(backup)
    ]
    if not full:
        raise NotFound("there is no full backup to prove", hint="take one first: 'ctl backup'")
    return max(full, key=lambda backup: backup.last_write)


def _fault(operation: Operation) -> OperationFailed | None:
    found = operation.result
    if not found["harmed"]:
        return None
    return OperationFailed(
        f"the backup {found['backup']} was restored and {found['harmed']} things are not right:"
        f" {found['problems'][0]}",
        hint="restore from another backup or storage; 'ctl list' says which are harmed",
    )


def _view(operation: Operation) -> RenderableType:
    found = operation.result
    if found["harmed"]:
        rows = [(problem,) for problem in found["problems"][:_SHOWN]]
        return Group(f"Restored {found['backup']}:", table(("PROBLEM~",), rows, indent=2))
    at = optime(OpTime.from_document(found["proved_at"]))
    text = (
        f"Proved {found['backup']} as of {at} on {found['node']}:\n"
        f"  restored in {duration(found['recovery_s'])},"
        f" {number(found['collections'])} collections with {number(found['documents'])} documents"
        " validated, all sound"
    )
    shares = found.get("shares", [])
    if not shares:
        return text
    lines = [
        (
            share["replset"],
            duration(share["recovery_s"]),
            number(share["collections"]),
            number(share["documents"]),
        )
        for share in shares
    ]
    columns = ("REPLICA SET", "RESTORED IN>", "COLLECTIONS>", "DOCUMENTS>")
    return Group(text, table(columns, lines, indent=2))
