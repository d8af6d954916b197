"""`ctl delete-backup`: the choice is made here, on the catalogue, and shown; agents delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Group

from agent.errors import NotFound, Refused
from agent.wire.operations import Kind
from agent.wire.places import Places
from agent.wire.profiles import storage_of
from agent.wire.specs import DeleteBackupSpec
from ctl.follow import headline
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import require_backup
from ctl.options import OlderThan, dry_run_option, global_options, wait_options, yes_option
from ctl.places import read_places
from ctl.render import moment, size, table
from ctl.submission import carry_out, submit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agent.wire.backups import Backup
    from ctl.session import Session

TYPES: Final = ("logical", "physical", "external", "incremental", "selective")


@dataclass(frozen=True, slots=True)
class Choice:
    """What goes, and what of the rest was meant and stays, with the reason."""

    going: tuple[Backup, ...]
    kept: tuple[tuple[Backup, str], ...]


@click.command("delete-backup")
@click.argument("name", required=False)
@click.option("--older-than", type=OlderThan(), help="7d, 2026-01-02 or 2026-01-02T03:04:05 (UTC).")
@click.option("-t", "--type", "type_", type=click.Choice(TYPES), help="Only of this type.")
@click.option("--profile", metavar="P", help="Only those on this storage profile.")
@dry_run_option
@yes_option
@wait_options
@global_options
@pass_invocation
def command(
    invocation: Invocation,
    /,
    *,
    name: str | None,
    older_than: datetime | timedelta | None,
    type_: str | None,
    profile: str | None,
    **flags: Any,
) -> None:
    """Delete the backup NAME, or with --older-than those whose last write is before a time."""
    if (name is None) == (older_than is None):
        raise click.UsageError("give either the NAME of a backup or --older-than")
    if name is not None and type_:
        raise click.UsageError("--type goes with --older-than only")

    async def run(session: Session) -> Result:
        places = await read_places(session)
        if profile is not None:
            storage_of(places.settings, profile)
        if name is not None:
            found = await require_backup(session, name)
            if profile is not None and profile not in places.profiles_of(found):
                raise NotFound(f"the backup {name} is not on {profile}")
            choice = choose_one(found)
        else:
            cutoff = await _cutoff(session, older_than)
            known = [
                backup
                for backup in await session.catalog.backups()
                if profile is None or profile in places.profiles_of(backup)
            ]
            choice = choose(known, cutoff, type_, places)
        return await _delete(session, choice, profile, **flags)

    invocation.perform(run)


def choose_one(backup: Backup) -> Choice:
    """A single backup. Raises `Refused` when it is held."""
    if backup.hold is not None:
        raise Refused(f"the backup {backup.id} is held: {backup.hold}")
    return Choice((backup,), ())


def choose(
    backups: Sequence[Backup], cutoff: datetime, type_: str | None, places: Places
) -> Choice:
    """What is older than a time, less what is held and what no profile leads to."""
    going: list[Backup] = []
    kept: list[tuple[Backup, str]] = []
    for backup in backups:
        if not _is_of(backup, type_):
            continue
        if backup.last_write.wall() >= cutoff:
            kept.append((backup, f"not older than {moment(cutoff)}"))
        elif backup.hold is not None:
            kept.append((backup, f"held: {backup.hold}"))
        elif not places.is_within_reach(backup):
            kept.append((backup, "out of reach: no profile leads to its repository"))
        else:
            going.append(backup)
    return Choice(tuple(going), tuple(kept))


def _is_of(backup: Backup, type_: str | None) -> bool:
    if type_ == "selective":
        return backup.is_selective
    return type_ is None or (backup.type == type_ and not backup.is_selective)


async def _cutoff(session: Session, older_than: datetime | timedelta | None) -> datetime:
    if isinstance(older_than, timedelta):
        return (await session.control.now()).wall() - older_than
    assert older_than is not None
    return older_than.astimezone(UTC)


async def _delete(
    session: Session,
    choice: Choice,
    profile: str | None,
    *,
    dry_run: bool,
    yes: bool,
    wait: bool,
    wait_time: float | None,
) -> Result:
    data: dict[str, Any] = {
        "dry_run": dry_run,
        "deleted": [{"name": b.id, "size": b.size_bytes} for b in choice.going],
        "kept": [{"name": b.id, "reason": why} for b, why in choice.kept],
    }
    if not choice.going:
        return Result(data, Group("Nothing to delete", *_kept(choice)))
    where = "" if profile is None else f" from {profile} only"
    view = Group(f"These backups will be deleted{where}:", _going(choice), *_kept(choice))
    if dry_run:
        return Result(data, view)
    if not session.output.confirm(view, "Delete them?", yes=yes):
        return Result({**data, "deleted": [], "status": "declined"}, "nothing was deleted")
    spec = DeleteBackupSpec(names=tuple(backup.id for backup in choice.going), profile=profile)
    operation = await submit(session, Kind.DELETE_BACKUP, spec)
    operation = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
    data |= {"op_id": operation.id, "status": operation.state.value}
    word = "done" if operation.state.is_terminal else "requested"
    words = f"{headline(operation)} {word} [op id: {operation.id}]"
    return Result(data, Group(words, _going(choice), *_kept(choice)))


def _going(choice: Choice) -> RenderableType:
    rows = [(b.id, size(b.size_bytes), moment(b.last_write.wall())) for b in choice.going]
    return table(("NAME", "SIZE>", "RESTORE TIME"), rows, indent=2)


def _kept(choice: Choice) -> list[RenderableType]:
    rows = [(backup.id, why) for backup, why in choice.kept]
    return ["Kept:", table(("NAME", "REASON~"), rows, indent=2)] if rows else []
