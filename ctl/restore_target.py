"""What a restore is asked to do: the flags checked, the backup chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agent.errors import ConfigError, TargetNotCovered
from agent.wire.namespaces import check_patterns
from agent.wire.optime import OpTime, parse_target
from agent.wire.quorum import parse_quorum
from ctl.lookup import require_backup
from ctl.places import read_places
from ctl.render import optime

if TYPE_CHECKING:
    from agent.wire.backups import Backup
    from ctl.session import Session


def check_target(
    name: str | None, time: str | None, base: str | None
) -> tuple[OpTime | None, str | None]:
    """The wanted moment and the backup to begin from, as far as they were given."""
    if name is not None and time is not None:
        raise click.UsageError(
            "NAME and --time exclude each other; --base-snapshot names the backup to begin from"
        )
    if name is None and time is None:
        raise click.UsageError("give the NAME of a backup, or --time")
    if base is not None and time is None:
        raise click.UsageError("--base-snapshot goes with --time only")
    return (parse_target(time) if time is not None else None), name or base


def build_options(
    *,
    ns: tuple[str, ...],
    exclude_ns: tuple[str, ...],
    ns_from: str | None,
    ns_to: str | None,
    index_commit_quorum: str | None,
    replset_remapping: dict[str, str] | None,
    **others: Any,
) -> dict[str, Any]:
    """The fields of the specification beside backup and time. Raises `ConfigError`."""
    ns = () if "*.*" in ns else ns
    if (ns_from is None) != (ns_to is None):
        raise click.UsageError("--ns-from and --ns-to go together")
    if ns_from is not None and (ns or exclude_ns):
        raise click.UsageError("--ns-from and --ns exclude each other")
    check_patterns(ns)
    check_patterns(exclude_ns)
    for one in filter(None, (ns_from, ns_to)):
        check_patterns((one,))
        if "*" in one or "." not in one:
            raise ConfigError(f"{one!r} is not one collection", hint="write db.collection")
    if ns_from is not None and ns_from == ns_to:
        raise ConfigError(f"{ns_from!r} would be restored to itself", hint="leave both out")
    return {
        "ns": ns,
        "exclude_ns": exclude_ns,
        "ns_from": ns_from,
        "ns_to": ns_to,
        "index_commit_quorum": _quorum(index_commit_quorum),
        "replset_remapping": replset_remapping or {},
        **others,
    }


def _quorum(text: str | None) -> str | int | None:
    try:
        return text if text is None else parse_quorum(text)
    except ValueError as error:
        said, _, hint = str(error).partition("; ")
        raise ConfigError(said, hint=hint) from error


async def choose_backup(session: Session, base: str | None, target: OpTime | None) -> Backup:
    """The named backup, or the newest full one before the wanted moment. Raises `NotFound`,
    `TargetNotCovered`."""
    if base is not None:
        backup = await require_backup(session, base)
        if target is not None and target < backup.last_write:
            raise TargetNotCovered(
                f"the backup {base} ends at {optime(backup.last_write)}, after the wanted time",
                hint="name an earlier backup, or none",
            )
        return backup
    assert target is not None
    places = await read_places(session)
    full = [
        backup
        for backup in await session.catalog.backups()
        if not backup.is_selective and places.is_within_reach(backup)
    ]
    earlier = [backup for backup in full if backup.last_write <= target]
    if not earlier:
        hint = "take one first: 'ctl backup'"
        if full:
            oldest = min(full, key=lambda backup: backup.last_write)
            hint = f"the earliest moment is {optime(oldest.last_write)}; 'ctl list' shows the rest"
        raise TargetNotCovered(f"no full backup ends before {optime(target)}", hint=hint)
    return max(earlier, key=lambda backup: backup.last_write)
