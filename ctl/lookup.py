"""Finding what a person named, and the nearest names where there is none."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.errors import NotFound
from agent.wire.operations import Kind, Operation

if TYPE_CHECKING:
    from agent.wire.backups import Backup
    from ctl.session import Session

REMEMBERED = 1000
"""As many operations as the agents keep."""


async def find_backup(session: Session, name: str) -> Backup | None:
    """The published backup of that name."""
    try:
        return await session.catalog.backup(name)
    except NotFound:
        return None


async def require_backup(session: Session, name: str) -> Backup:
    """The published backup of that name. Raises `NotFound` with the nearest ones."""
    found = await find_backup(session, name)
    if found is None:
        raise unknown("backup", name, [backup.id for backup in await session.catalog.backups()])
    return found


async def find_restores(session: Session) -> list[Operation]:
    """The restores that the cluster or its storage remembers, the oldest first; no dry runs."""
    made = [
        operation
        for operation in await session.operations.recent(REMEMBERED)
        if operation.kind is Kind.RESTORE and not operation.spec.get("dry_run")
    ]
    known = {operation.id for operation in made}
    for document in await session.catalog.restores():
        recorded = _recorded(document)
        if recorded is not None and recorded.id not in known:
            made.append(recorded)
    return sorted(made, key=lambda operation: operation.requested_at)


async def require_restore(session: Session, name: str) -> Operation:
    """The restore of that name. Raises `NotFound` with the nearest ones."""
    restores = await find_restores(session)
    for operation in restores:
        if operation.name == name:
            return operation
    raise unknown("restore", name, [operation.name for operation in restores])


def unknown(what: str, name: str, known: Sequence[str]) -> NotFound:
    """The error for a name that nothing has."""
    if not known:
        return NotFound(f"no {what} named {name!r}", hint=f"there is no {what} at all")
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    hint = f"nearest: {', '.join(near)}" if near else f"the newest is {max(known)}"
    return NotFound(f"no {what} named {name!r}", hint=hint)


def _recorded(document: dict[str, Any]) -> Operation | None:
    # The record is the operation's own document, under the name of the restore.
    whole = {"kind": Kind.RESTORE, **document, "name": document["_id"]}
    try:
        return Operation.from_document({**whole, "_id": document.get("op_id", document["_id"])})
    except ValidationError:
        return None  # of a version that records other things
