"""Which objects a backup consists of, read from storage alone.

The published manifests say it for a published backup; for one that never got so far, its journals
do. Deletion works by reference: an object goes when no kept backup names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydantic import ValidationError

from agent.archive.codec import in_thread
from agent.archive.layout import backup_key, backup_name_of, backup_root, data_key_key
from agent.archive.manifest import Manifest
from agent.archive.objects import get_public_json
from agent.errors import IntegrityError, ObjectNotFound
from agent.operations.backup.journal import Entry
from agent.storage.base import Storage, get_bytes
from agent.wire.backups import Backup


@dataclass(slots=True)
class Inventory:
    """The objects of one backup: those that others may name too, and those of its own folder, in
    the order in which they are to be deleted."""

    chunks: set[str] = field(default_factory=set)
    slices: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    """Wrapped data keys: whoever names no object encrypted with one needs it no more."""
    folder: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def shared(self) -> set[str]:
        """Everything outside the backup's own folder."""
        return self.chunks | self.slices | self.keys

    def add_manifest(self, manifest: Manifest) -> None:
        """Take in what a manifest names."""
        self.chunks.update(item.key for item in manifest.objects)
        self.slices.update(item.key for item in manifest.slices)
        self.keys.update(data_key_key(key_id) for key_id in manifest.key_ids)

    def add_entry(self, entry: Entry) -> None:
        """Take in what a journal entry names."""
        self.chunks.update(item.key for unit in entry.units for item in unit.objects)
        self.slices.update(archived.ref.key for archived in entry.slices)
        found = {item.key_id for unit in entry.units for item in unit.objects}
        found |= {archived.ref.key_id for archived in entry.slices}
        self.keys.update(data_key_key(key_id) for key_id in found if key_id)


async def read_backup(storage: Storage, name: str) -> Backup | None:
    """The published document of a backup, None where there is none. Raises `IntegrityError`."""
    found = await read_document(storage, name)
    return None if found is None else found[0]


async def read_document(storage: Storage, name: str) -> tuple[Backup, bytes] | None:
    """The same with the document as it is stored."""
    key = backup_key(name)
    try:
        data = await get_bytes(storage, key)
    except ObjectNotFound:
        return None
    try:
        backup = Backup.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{key} on {storage.address} cannot be read: {error}") from error
    if backup.id != name:
        raise IntegrityError(f"{key} on {storage.address} is that of the backup {backup.id}")
    return backup, data


async def read_manifest(storage: Storage, key: str, sha256: str | None = None) -> Manifest:
    """A manifest, proven where its digest is known; of an encrypted one what is readable without
    a key. Raises `IntegrityError`."""
    text = await get_public_json(storage, key, sha256=sha256)
    try:
        return await in_thread(Manifest.parse, text)
    except ValueError as error:
        raise IntegrityError(f"{key} on {storage.address} cannot be read: {error}") from error


async def read_entry(storage: Storage, key: str) -> Entry:
    """A journal entry, likewise. Raises `IntegrityError`."""
    text = await get_public_json(storage, key)
    try:
        return await in_thread(Entry.parse, text)
    except ValueError as error:
        raise IntegrityError(f"{key} on {storage.address} cannot be read: {error}") from error


async def published_names(storage: Storage) -> list[str]:
    """All backups that storage holds, in order of their names."""
    names = [backup_name_of(item.key) async for item in storage.list("backups/")]
    return [name for name in names if name is not None]


async def is_published(storage: Storage, name: str) -> bool:
    """Whether there is a backup of this name, listed or not: a list may be behind."""
    try:
        await storage.stat(backup_key(name))
    except ObjectNotFound:
        return False
    return True


async def inventory_of(storage: Storage, name: str) -> Inventory:
    """Everything that one backup, published or not, brought to the repository.

    In the folder, `backup.json` comes first (without it the backup is gone) and what tells of
    other objects last, so that a deletion that was cut short can be taken up again. A manifest or
    journal that cannot be read tells nothing, and is noted as such.
    """
    found = Inventory()
    tells: list[str] = []
    async for item in storage.list(backup_root(name)):
        try:
            if "/manifest-" in item.key:
                tells.append(item.key)
                found.add_manifest(await read_manifest(storage, item.key))
            elif "/journal/" in item.key:
                tells.append(item.key)
                found.add_entry(await read_entry(storage, item.key))
            else:
                found.folder.append(item.key)
        except IntegrityError:
            found.unreadable.append(item.key)
    found.folder += tells
    return found


async def referenced_by(storage: Storage, names: Iterable[str]) -> set[str]:
    """The shared objects that the named backups need, as far as they are published.

    Raises `IntegrityError` naming the manifest that is missing or harmed.
    """
    needed = Inventory()
    for name in names:
        backup = await read_backup(storage, name)
        for share in backup.replsets if backup is not None else ():
            manifest = await read_manifest(storage, share.manifest_key, share.manifest_sha256)
            needed.add_manifest(manifest)
    return needed.shared
