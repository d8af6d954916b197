"""The catalogue follows the storage: a backup that storage publishes is listed.

`backup.json` is what makes a backup; the catalogue is a copy of it for `ctl`. Whatever fails for
good between the two is mended here: by the deletion that could not go on, by the next cleanup, and
by a resync, which all list again what is still there.
"""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from agent.errors import TidelogError
from agent.operations.authenticity import check_in_clear
from agent.operations.inventory import read_document
from agent.operations.removal.holds import with_hold
from agent.storage.base import Storage
from agent.store.catalog import Catalog
from agent.wire.backups import Backup

log = structlog.stdlib.get_logger()


async def list_backup(catalog: Catalog, storage: Storage, name: str, profile: str) -> bool:
    """List what storage publishes under this name, with the hold that counts now; whether it
    publishes anything. Raises `IntegrityError`, too for one that somebody else put there, and
    `Conflict` where another is listed so."""
    document = await read_document(storage, name)
    if document is None:
        return False
    backup, data = document
    await check_in_clear(storage, backup, data)
    held = await with_hold(storage, backup)
    await catalog.publish_backup(held.model_copy(update={"profile": profile}))
    await catalog.hold_backup(name, held.hold)
    return True


async def list_missing(
    catalog: Catalog, storage: Storage, published: Iterable[Backup], profile: str
) -> list[str]:
    """List those that no catalogue entry tells of; answers their names. One that cannot be listed
    is passed over, with the reason in the log."""
    known = {one.id: {copy.repository_id for copy in one.places} for one in await catalog.backups()}
    listed = []
    for backup in published:
        if backup.repository_id in known.get(backup.id, ()):
            continue
        try:
            if await list_backup(catalog, storage, backup.id, profile):
                listed.append(backup.id)
        except TidelogError as error:
            log.warning("backup.not_listed", backup=backup.id, error=str(error))
    if listed:
        log.info("backup.listed_again", backups=listed, profile=profile)
    return listed
