"""Wrapped data keys that nothing needs any more.

A deleted backup takes its data key along. What is left over: the keys of days whose slices are all
gone, and those of backups that failed before they had written anything that names them. A key that
is missing loses data, and one that is kept too long loses nothing, so all doubt is in its favour: a
slicer may write to the day of its replica set's newest slice and to any day after, or, where it has
no slices, to these two days; and a key that was made within the hour may be about to be used.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from agent.archive.envelope import is_encrypted
from agent.archive.keyring import Purpose
from agent.archive.layout import KEYS, SLICES, key_id_of, slice_day_of
from agent.archive.wraps import stored_wraps
from agent.errors import IntegrityError
from agent.storage.base import ObjectInfo, Storage

YOUNG: Final = timedelta(hours=1)
_DAY_KEY: Final = re.compile(r"(pitr-.+-)(\d{8})-[0-9a-f]+")
_BACKUP_KEY: Final = re.compile(r"backup-([^-]+)-[0-9a-f]+")


async def unneeded_keys(
    storage: Storage, named: set[str], now: datetime
) -> AsyncIterator[tuple[str, ObjectInfo]]:
    """Wraps of data keys that none of the published backups names (`named` are the ids that they
    do) and no slice can need, each with whose they are: `operation <id>` or `day <key id>`."""
    wraps: dict[str, list[ObjectInfo]] = {}
    async for item in storage.list(KEYS):
        key_id = key_id_of(item.key)
        if key_id is not None and key_id not in named:
            wraps.setdefault(key_id, []).append(item)
    if not wraps:
        return
    used, newest = await _days(storage)
    for key_id, items in wraps.items():
        owner = _owner_of(key_id, used, newest, now)
        if owner is not None and not await _is_young(storage, key_id, now):
            for item in items:
                yield owner, item


async def _days(storage: Storage) -> tuple[set[str], dict[str, str]]:
    """How the ids of the keys begin that slices may need, and the newest day of each replica set,
    by how the ids of its keys begin."""
    used: set[str] = set()
    newest: dict[str, str] = {}
    async for item in storage.list(SLICES):
        day = slice_day_of(item.key)
        if day is None:
            continue
        prefix = Purpose("pitr", item.key.split("/")[1]).prefix(item.key)
        whose = prefix.removesuffix(f"{day}-")
        newest[whose] = max(day, newest.get(whose, day))
        if is_encrypted(item.key):
            used.add(prefix)
    return used, newest


def _owner_of(key_id: str, used: set[str], newest: Mapping[str, str], now: datetime) -> str | None:
    backup = _BACKUP_KEY.fullmatch(key_id)
    if backup is not None:
        return f"operation {backup[1]}"
    found = _DAY_KEY.fullmatch(key_id)
    if found is None or f"{found[1]}{found[2]}-" in used:
        return None
    written_from = newest.get(found[1]) or f"{now - timedelta(days=1):%Y%m%d}"
    return f"day {key_id}" if found[2] < written_from else None


async def _is_young(storage: Storage, key_id: str, now: datetime) -> bool:
    try:
        return now - (await stored_wraps(storage, key_id)).created_at < YOUNG
    except IntegrityError:
        return False
