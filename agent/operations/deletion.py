"""`ctl delete-backup`: the catalogue first, then `backup.json`, then objects, then what names them.

A deletion may be cut short anywhere: whoever takes it up lists the backup's folder, which names
what is left to the end. Objects that another backup names stay. That everything is gone is checked
by listing, not by the answers of the delete calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agent.archive.layout import backup_key, backup_root, data_key_prefix, key_id_of
from agent.errors import Conflict, NotFound, Refused, StorageUnavailable
from agent.faults import fault_point
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import known_backup, opened, profile_of
from agent.operations.inventory import inventory_of, published_names, referenced_by
from agent.operations.repository import claimed, looked_at
from agent.storage.base import Storage
from agent.wire.operations import Kind, Operation
from agent.wire.specs import DeleteBackupSpec, RestoreSpec

_BATCH: Final = 500
_PLACES: Final = "places"
"""Field of the result: `{backup: [[profile, repository id], …]}`."""


class DeleteBackupKind:
    """Deletion of named backups, all by the lead."""

    kind = Kind.DELETE_BACKUP

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backups must exist, not be held, and not be in use."""
        spec = DeleteBackupSpec.from_document(operation.spec)
        catalogue = {backup.id: backup for backup in await lead.services.catalog.backups()}
        for name in spec.names:
            if name not in catalogue:
                raise NotFound(f"there is no backup {name}", hint="'ctl list' shows what there is")
            if catalogue[name].hold:
                raise Refused(f"backup {name} is on hold: {catalogue[name].hold}")
        for other in await lead.services.operations.active():
            if other.kind is Kind.RESTORE:
                reading = RestoreSpec.from_document(other.spec).backup
                if reading in spec.names:
                    raise Conflict(f"restore {other.id} is reading backup {reading}")
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Delete one after the other, copy after copy; idempotent. A copy stays listed until its
        storage was reached, so none is forgotten because a storage is down."""
        spec = DeleteBackupSpec.from_document(operation.spec)
        services, settings = lead.services, lead.settings
        places, deleted = await _places(lead, operation, spec), 0
        for name in spec.names:
            for profile, repository in places.get(name, ()):
                lead.lease.check()
                async with opened(services, settings, profile) as storage:
                    await claimed(services, settings, profile, storage)
                    await services.catalog.withdraw_copy(name, repository)
                    await fault_point("delete.withdrawn")
                    deleted += await delete_backup(storage, name)
        return {"deleted": list(spec.names), "objects": deleted}


async def _places(
    lead: LeadContext, operation: Operation, spec: DeleteBackupSpec
) -> dict[str, list[list[str]]]:
    """`[profile, repository id]` of each copy to delete, by backup: found out before anything is
    touched and written down, since the catalogue forgets the copies on the way."""
    if _PLACES in operation.result:
        noted: dict[str, list[list[str]]] = operation.result[_PLACES]
        return noted
    found: dict[str, list[list[str]]] = {}
    for name in spec.names:
        known = await known_backup(lead.services, name)
        if known is None:
            continue
        for copy in known.places:
            profile = spec.profile
            if profile is None:
                alone = known.model_copy(update={"copies": (copy,)})
                profile = await profile_of(lead.services, lead.settings, alone)
            elif not await _leads_to(lead, profile, copy.repository_id):
                continue
            found.setdefault(name, []).append([profile, copy.repository_id])
    await lead.services.operations.merge_result(operation.id, lead.lease.epoch, {_PLACES: found})
    return found


async def _leads_to(lead: LeadContext, profile: str, repository: str) -> bool:
    async with opened(lead.services, lead.settings, profile) as storage:
        marker = await looked_at(lead.services, lead.settings, profile, storage)
    return marker is not None and marker.repository_id == repository


async def delete_backup(storage: Storage, name: str) -> int:
    """Remove all that only this backup needs; answers how many objects that were.

    Raises `StorageUnavailable` when something is still listed afterwards, and `IntegrityError`,
    with nothing touched, when it cannot be known what another backup needs.
    """
    doomed = await inventory_of(storage, name)
    others = [other for other in await published_names(storage) if other != name]
    shared = sorted(doomed.shared - await referenced_by(storage, others))
    shared += await _further_wraps(storage, shared)
    await storage.delete([backup_key(name)])
    for keys in (shared, doomed.folder):
        await _delete_in_batches(storage, keys)
    left = [item.key async for item in storage.list(backup_root(name))]
    if left:
        raise StorageUnavailable(f"{left[0]} is still listed after it was deleted")
    return len(shared) + len(doomed.folder)


async def _further_wraps(storage: Storage, keys: Sequence[str]) -> list[str]:
    """What rotations added to the wrapped data keys among these: a data key that goes must not be
    left under another wrap."""
    ids = [key_id for key_id in map(key_id_of, keys) if key_id is not None]
    found = [item.key for key_id in ids async for item in storage.list(data_key_prefix(key_id))]
    return [key for key in found if key not in keys]


async def _delete_in_batches(storage: Storage, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), _BATCH):
        await storage.delete(keys[start : start + _BATCH])
        await fault_point("delete.object_deleted")
