"""What a restore would drop and overwrite, to be shown before it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Group

from agent.errors import TidelogError
from agent.wire.namespaces import split
from ctl.render import fields, number, optime, size, table, title

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup
    from agent.wire.specs import RestoreSpec
    from ctl.session import Session

_SYSTEM = frozenset({"admin", "config", "local"})
_SHOWN = 30


async def what_goes(session: Session, backup: Backup, spec: RestoreSpec) -> RenderableType:
    """The question's ground: what comes, where to, and what goes."""
    parts: list[RenderableType] = [
        title("This restore will overwrite data."),
        fields(_facts(session, backup, spec), indent=2),
        _sentence(spec),
    ]
    try:
        found = await session.databases()
    except TidelogError:
        # Not everybody may list them; the sentence above says it all the same.
        return Group(*parts)
    rows = [(name, size(size_bytes)) for name, size_bytes in _affected(found.items(), spec)]
    if rows:
        parts += ["Databases here that it touches:"]
        parts += [table(("DATABASE", "SIZE>"), rows[:_SHOWN], indent=2)]
    if len(rows) > _SHOWN:
        parts.append(f"  and {len(rows) - _SHOWN} more")
    return Group(*parts)


def _facts(session: Session, backup: Backup, spec: RestoreSpec) -> list[tuple[str, str]]:
    sets = [
        f"{part.replset} -> {spec.replset_remapping.get(part.replset, part.replset)}"
        for part in backup.replsets
    ]
    documents = sum(part.documents for part in backup.replsets)
    return [
        ("Backup", f"{backup.id}, {size(backup.size_uncompressed_bytes)} uncompressed,"),
        ("", f"{number(documents)} documents, MongoDB {backup.mongodb_version}"),
        ("To", optime(spec.time or backup.last_write)),
        ("Into", session.control.hosts),
        ("Replica sets", ", ".join(sets)),
    ]


def _sentence(spec: RestoreSpec) -> str:
    if spec.ns_from is not None:
        return f"Collection {spec.ns_to} will be replaced by {spec.ns_from} of the backup."
    if not spec.is_selective:
        return (
            "All databases, users and roles will be made equal to the backup:\n"
            "what is not in it will be dropped, what is will be replaced."
        )
    only = f"Only {', '.join(spec.ns)} will be replaced" if spec.ns else "All will be replaced"
    but = f", but not {', '.join(spec.exclude_ns)}" if spec.exclude_ns else ""
    users = "; users and roles, too" if spec.with_users_and_roles else ""
    return f"{only}{but}{users}."


def _affected(found: Iterable[tuple[str, int]], spec: RestoreSpec) -> list[tuple[str, int]]:
    ns = (spec.ns_to,) if spec.ns_to is not None else spec.ns
    wanted = {split(pattern)[0] for pattern in ns}
    return [
        (name, size_bytes)
        for name, size_bytes in found
        if name not in _SYSTEM and (not wanted or name in wanted)
    ]
