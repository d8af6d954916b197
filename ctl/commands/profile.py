"""`ctl profile`: the storages beside the one of the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from agent.errors import Refused
from agent.wire.keys import parse_yaml
from agent.wire.operations import Kind
from agent.wire.places import Places
from agent.wire.profiles import (
    MAIN,
    check_name,
    in_words,
    names,
    place_of,
    storage_in,
    storage_of,
    storage_path,
    with_profile,
    without_profile,
)
from agent.wire.settings import Settings, masked
from agent.wire.specs import ResyncSpec
from ctl.invocation import Invocation, Result, pass_invocation
from ctl.options import global_options, wait_options, yes_option
from ctl.places import read_places
from ctl.render import as_yaml, table
from ctl.settings_change import apply_change
from ctl.storage_settings import require_storage
from ctl.submission import brief, brief_text, carry_out, submit

if TYPE_CHECKING:
    from ctl.session import Session


@click.group("profile")
@global_options
def command() -> None:
    """Storages beside the main one: add, show and remove them, list what they hold."""


@command.command("add")
@click.argument("name")
@click.argument("file", type=click.File(encoding="utf-8"))
@click.option("--sync", is_flag=True, help="List the backups that it holds already.")
@wait_options
@global_options
@pass_invocation
def add(
    invocation: Invocation,
    /,
    *,
    name: str,
    file: IO[str],
    sync: bool,
    wait: bool,
    wait_time: float | None,
) -> None:
    """Add the storage in FILE (- is stdin) as profile NAME, or change the profile of that name.

    The file is the `storage` section of the settings, as one of PBM's profiles is.
    """
    source = getattr(file, "name", "the file")
    storage = storage_in(parse_yaml(file.read(), source), source)
    check_name(name)

    async def run(session: Session) -> Result:
        settings = await apply_change(
            session, lambda before: with_profile(before, name, storage), profile=name
        )
        shown = _shown(settings, name)
        if others := _at_the_same_place(settings, name):
            session.output.note(
                f"Warning: {name} leads to the same place as {in_words(others)}: what one holds the"
                " other holds, and a backup to both is refused"
            )
        if not sync:
            return Result(shown, as_yaml(shown))
        synced = await _sync(session, (name,), wait=wait, wait_time=wait_time)
        return Result({**shown, "sync": synced.data}, synced.text)

    invocation.perform(run)


@command.command("list")
@global_options
@pass_invocation
def list_(invocation: Invocation) -> None:
    """List the profiles, where they lead, and how many backups lie there."""

    async def run(session: Session) -> Result:
        places = await read_places(session)
        backups = await session.catalog.backups()
        held = [profile for backup in backups for profile in places.profiles_of(backup)]
        rows = [
            {**_listed(places, name), "backups": held.count(name)}
            for name in names(places.settings)
        ]
        shown = ("name", "type", "path", "backups", "repository_id")
        cells = [[str(row[key] if row[key] is not None else "-") for key in shown] for row in rows]
        columns = ("NAME", "TYPE", "PATH~", "BACKUPS>", "REPOSITORY")
        return Result(rows, table(columns, cells) if rows else "no storage is configured")

    invocation.perform(run)


@command.command("show")
@click.argument("name")
@global_options
@pass_invocation
def show(invocation: Invocation, name: str) -> None:
    """Show the settings of a profile; secrets are shown as ***."""

    async def run(session: Session) -> Result:
        settings, _ = await session.settings.read()
        shown = _shown(settings, name)
        return Result(shown, as_yaml(shown))

    invocation.perform(run)


@command.command("remove")
@click.argument("name")
@click.option("--force", is_flag=True, help="Although backups lie there; they stay where they are.")
@yes_option
@global_options
@pass_invocation
def remove(invocation: Invocation, name: str, force: bool, yes: bool) -> None:
    """Forget a profile. Nothing on its storage is touched.

    Refused while backups are listed that lie nowhere else: they could not be restored any more.
    """

    async def run(session: Session) -> Result:
        places = await read_places(session)
        check_name(name)
        storage_of(places.settings, name)
        only = [b.id for b in await session.catalog.backups() if places.profiles_of(b) == [name]]
        if only and not force:
            raise Refused(
                f"{len(only)} listed backups lie on {name} alone, the newest is {max(only)}",
                hint="delete them first, or add --force: they stay on the storage and are listed "
                "as out of reach until a profile leads there again",
            )
        question = f"The profile {name} ({storage_path(places.settings, name)}) will be forgotten"
        if not session.output.confirm(question, "Forget it?", yes=yes):
            return Result({"removed": None, "status": "declined"}, "nothing was changed")
        await apply_change(session, lambda before: without_profile(before, name))
        words = f"the profile {name} is forgotten; nothing on its storage was touched"
        return Result({"removed": name, "out_of_reach": only}, words)

    invocation.perform(run)


@command.command("sync")
@click.argument("name", required=False)
@click.option("--all", "all_", is_flag=True, help="All profiles, main as well.")
@wait_options
@global_options
@pass_invocation
def sync(
    invocation: Invocation,
    /,
    *,
    name: str | None,
    all_: bool,
    wait: bool,
    wait_time: float | None,
) -> None:
    """List what the storage of profile NAME holds: the catalogue is rebuilt from it."""
    if (name is None) != all_:
        raise click.UsageError("give either the NAME of a profile or --all")

    async def run(session: Session) -> Result:
        settings, _ = await session.settings.read()
        profiles = (names(settings) or [MAIN]) if name is None else [name]
        for profile in profiles:
            await require_storage(session, profile)
        return await _sync(session, profiles, wait=wait, wait_time=wait_time)

    invocation.perform(run)


async def _sync(
    session: Session, profiles: Sequence[str], *, wait: bool, wait_time: float | None
) -> Result:
    operation = await submit(session, Kind.RESYNC, ResyncSpec(profiles=tuple(profiles)))
    done = await carry_out(session, operation, wait=wait, wait_time_s=wait_time)
    data = {**brief(done), "profiles": list(profiles)}
    if not done.state.is_terminal:
        return Result(data, brief_text(done))
    words = f"{done.result.get('backups', 0)} backups are listed from {in_words(profiles)}"
    return Result({**data, **done.result}, words)


def _at_the_same_place(settings: Settings, name: str) -> list[str]:
    place = {one: place_of(storage_of(settings, one)) for one in names(settings)}
    return [one for one in place if one != name and place[one] == place[name]]


def _listed(places: Places, name: str) -> dict[str, Any]:
    found = places.found(name)
    return {
        "name": name,
        "type": storage_of(places.settings, name).type,
        "path": storage_path(places.settings, name),
        "repository_id": found.repository_id if found is not None else None,
        "owner": found.cluster_id if found is not None else None,
    }


def _shown(settings: Settings, name: str) -> dict[str, Any]:
    storage_of(settings, name)
    shown = masked(settings)
    storage = shown["storage"] if name == MAIN else shown["profiles"][name]
    return {"name": name, "storage": storage}
