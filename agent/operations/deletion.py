"""Deleting one backup: `backup.json` first, then objects, then what names them.

A deletion may be cut short anywhere: whoever takes it up lists the backup's folder, which names
what is left to the end. Objects that another backup names stay. That everything is gone is checked
by listing, not by the answers of the delete calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agent.archive.layout import backup_key, backup_root, data_key_prefix, key_id_of
from agent.operations.inventory import inventory_of, published_names, referenced_by
from agent.operations.removal.objects import delete_keys, prove_empty, prove_gone
from agent.storage.base import Storage


async def delete_backup(
    storage: Storage,
    name: str,
    *,
    known: Iterable[str] = (),
    check: Callable[[], None] | None = None,
) -> int:
    """Remove all that only this backup needs; answers how many objects that were. `known` are
    names of further backups that the list of the storage may not have yet.

    Raises `StorageUnavailable` when something is still listed afterwards, and `IntegrityError`,
    with nothing touched, when it cannot be known what another backup needs.
    """
    doomed = await inventory_of(storage, name)
    others = sorted({*known, *await published_names(storage)} - {name})
    shared = sorted(doomed.shared - await referenced_by(storage, others))
    shared += await _further_wraps(storage, shared)
    if check is not None:
        check()
    await storage.delete([backup_key(name)])
    await delete_keys(storage, shared, check=check)
    await prove_gone(storage, shared)
    await delete_keys(storage, doomed.folder, check=check)
    await prove_empty(storage, backup_root(name))
    return len(shared) + len(doomed.folder)


async def _further_wraps(storage: Storage, keys: Sequence[str]) -> list[str]:
    """What rotations added to the wrapped data keys among these: a data key that goes must not be
    left under another wrap."""
    ids = [key_id for key_id in map(key_id_of, keys) if key_id is not None]
    found = [item.key for key_id in ids async for item in storage.list(data_key_prefix(key_id))]
    return [key for key in found if key not in keys]
