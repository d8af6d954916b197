"""Where a backup lies, and the way to it: any storage that holds it and answers.

A copy is known by the id of its repository. Profiles are asked for theirs, those that the backup
was written through first; whatever a profile is called now, and wherever its settings point, a
backup is only ever read from, or deleted in, the very repository it was written to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from agent.errors import NotFound, StorageUnavailable, TidelogError, Transient
from agent.operations.context import Services
from agent.operations.repository import looked_at
from agent.storage.base import Storage
from agent.wire.backups import Backup, Copy
from agent.wire.profiles import MAIN, in_words, names
from agent.wire.settings import Settings


async def known_backup(services: Services, name: str) -> Backup | None:
    """What the catalogue says of a backup; None where it does not know it."""
    try:
        return await services.catalog.backup(name)
    except NotFound:
        return None


async def profile_of(
    services: Services, settings: Settings, backup: Backup, wanted: str | None = None
) -> str:
    """A profile that leads to a copy of this backup and answers. `wanted` admits only that one.

    Raises `NotFound` where no profile leads to any, `StorageUnavailable` where one might and does
    not answer.
    """
    ids = {copy.repository_id for copy in backup.places}
    silent: list[str] = []
    asked = in_order(settings, backup.places) if wanted is None else [wanted]
    for profile in asked:
        try:
            async with opened(services, settings, profile) as storage:
                marker = await looked_at(services, settings, profile, storage)
        except Transient as error:
            silent.append(f"{profile}: {error}")
            continue
        except TidelogError as error:
            if wanted is not None:
                raise
            silent.append(f"{profile}: {error}")
            continue
        if marker is not None and marker.repository_id in ids:
            return profile
    if silent:
        raise StorageUnavailable(
            f"no storage that may hold the backup {backup.id} can be read: {'; '.join(silent)}",
            hint="'ctl storage check' says what is wrong with it",
        )
    raise NotFound(
        f"the backup {backup.id} is not in the repository of {in_words(asked)}",
        hint=f"it was written to the repository {in_words(sorted(ids))} as "
        f"{in_words(copy.profile for copy in backup.places)}; add a profile that leads there",
    )


def in_order(settings: Settings, copies: Iterable[Copy]) -> list[str]:
    """The profiles in which to look for a backup: those it was written through, then the rest."""
    known = names(settings)
    likely = [copy.profile for copy in copies if copy.profile in known]
    return list(dict.fromkeys([*likely, *known])) or [MAIN]


@asynccontextmanager
async def opened(services: Services, settings: Settings, profile: str) -> AsyncIterator[Storage]:
    """The storage of a profile, closed at the end."""
    storage = await services.open_storage(settings, profile)
    try:
        yield storage
    finally:
        await storage.aclose()
