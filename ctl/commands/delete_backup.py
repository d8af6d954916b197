"""`ctl delete-backup`: the choice is made here, on the catalogue, and shown; agents make it again
and delete."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from agent.errors import NotFound, Refused
from agent.wire.operations import Kind
from agent.wire.profiles import in_words, names, storage_of
from agent.wire.removals import backup_rules, copied_elsewhere, spared_since
from agent.wire.retention import lost_spans
from agent.wire.specs import DeleteBackupSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.lookup import require_backup
from ctl.options import OlderThan, dry_run_option, global_options, wait_options, yes_or_force_option
from ctl.removal import Holdings, Preview, cutoff, of_backups, read_holdings, remove
from ctl.render import moment

if TYPE_CHECKING:
    from agent.wire.backups import Backup
    from ctl.session import Session

TYPES: Final = ("logical", "physical", "external", "incremental", "selective")


@click.command("delete-backup")
@click.argument("name", required=False)
@click.option("--older-than", type=OlderThan(), help="7d, 2026-01-02 or 2026-01-02T03:04:05 (UTC).")
@click.option("-t", "--type", "type_", type=click.Choice(TYPES), help="Only of this type.")
@click.option("--profile", metavar="P", help="Only those on this storage profile.")
@dry_run_option
@yes_or_force_option
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
    """Delete the backup NAME, or with --older-than those whose last write is before a time.

    What is held, what somebody restores from and what PITR needs as a base stays.
    """
    if (name is None) == (older_than is None):
        raise click.UsageError("give either the NAME of a backup or --older-than")
    if name is not None and type_:
        raise click.UsageError("--type goes with --older-than only")

    async def run(session: Session) -> Result:
        holdings = await read_holdings(session)
        if profile is not None:
            storage_of(holdings.settings, profile)
        if name is not None:
            found = await require_backup(session, name)
            if profile is not None and profile not in holdings.places.profiles_of(found):
                raise NotFound(f"the backup {name} is not on {profile}")
            preview, spec = choose_one(holdings, name, profile)
        else:
            assert older_than is not None
            preview, spec = choose(holdings, older_than, type_, profile)
        if profile is not None and preview.going:
            where = _where(holdings, profile)
            preview = replace(preview, remark=f"{where} {preview.remark}".strip())
        question = "Delete them?" if len(spec.names) > 1 else "Delete it?"
        return await remove(session, Kind.DELETE_BACKUP, spec, preview, question, **flags)

    invocation.perform(run)


def _where(holdings: Holdings, profile: str) -> str:
    """From which profiles they go: more than the one that was named may lead to its repository."""
    found = holdings.places.found(profile)
    here = found.repository_id if found is not None else None
    others = [
        name
        for name in names(holdings.settings)
        if name != profile
        and here is not None
        and (other := holdings.places.found(name)) is not None
        and other.repository_id == here
    ]
    if others:
        return f"From {profile}, which leads to the same repository as {in_words(others)}."
    return f"From {profile} only."


def choose_one(
    holdings: Holdings, name: str, profile: str | None = None
) -> tuple[Preview, DeleteBackupSpec]:
    """A single backup. Raises `Refused` when it has to stay."""
    spec = DeleteBackupSpec(names=(name,), profile=profile)
    rules = backup_rules(spec, holdings.settings, holdings.now)
    meant = [backup for backup in holdings.backups if backup.id == name]
    preview = of_backups(
        holdings, holdings.decide_deletion(rules, frozenset(spec.names), profile), meant
    )
    if preview.kept:
        is_held = any(backup.hold for backup in meant)
        raise Refused(
            f"the backup {name} stays: {preview.kept[0][1]}",
            hint=f"'ctl hold {name} --release' lets it go" if is_held else "",
        )
    bases = {b.id: b.last_write for b in holdings.backups if not b.is_selective}
    stays = copied_elsewhere(holdings.backups, profile)
    after = [at for other, at in bases.items() if other != name or name in stays]
    lost = lost_spans(holdings.spans, bases.values(), after)
    since = spared_since(holdings.settings, holdings.now, holdings.spans)
    if since is not None and any(span.end >= since for span in lost):
        raise Refused(
            f"PITR needs the backup {name} as a base",
            hint="take a new backup first, or switch PITR off and run 'ctl delete-pitr'",
        )
    words = [f"{moment(s.start.wall())} to {moment(s.end.wall())}" for s in lost]
    remark = f"No longer restorable then: {', '.join(words)}" if words else ""
    return replace(preview, remark=remark), spec


def choose(
    holdings: Holdings,
    older_than: datetime | timedelta,
    type_: str | None,
    profile: str | None,
) -> tuple[Preview, DeleteBackupSpec]:
    """What is older than a time, less what has to stay."""
    at = cutoff(holdings.now, older_than)
    meant = [
        backup
        for backup in holdings.backups
        if _is_of(backup, type_)
        and (profile is None or profile in holdings.places.profiles_of(backup))
    ]
    names = frozenset(backup.id for backup in meant)
    spec = DeleteBackupSpec(names=(), older_than=at, profile=profile)
    rules = backup_rules(spec, holdings.settings, holdings.now)
    preview = of_backups(holdings, holdings.decide_deletion(rules, names, profile), meant)
    return preview, spec.model_copy(update={"names": tuple(b.id for b in preview.going)})


def _is_of(backup: Backup, type_: str | None) -> bool:
    if type_ == "selective":
        return backup.is_selective
    return type_ is None or (backup.type == type_ and not backup.is_selective)
