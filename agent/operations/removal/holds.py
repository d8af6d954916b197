"""Holds that were set or released after a backup was published.

`backup.json` is written once, so each change is a small object beside it, numbered; the last one
counts. The storage is the truth here too: a resync finds the holds again.
"""

from __future__ import annotations

import json
from typing import Any, Final

from agent.archive.layout import hold_key, hold_prefix
from agent.errors import IntegrityError, ObjectExists
from agent.faults import fault_point
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import opened, profile_of
from agent.operations.repository import claimed
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation
from agent.wire.specs import HoldSpec

_TRIES: Final = 10


class HoldKind:
    """`ctl hold`, all by the lead."""

    kind = Kind.HOLD

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The backup must exist."""
        await lead.services.catalog.backup(HoldSpec.from_document(operation.spec).name)
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """On the storage, then in the catalogue; again after a crash, with the same end."""
        spec = HoldSpec.from_document(operation.spec)
        backup = await lead.services.catalog.backup(spec.name)
        for copy in backup.places:
            alone = backup.model_copy(update={"copies": (copy,)})
            profile = await profile_of(lead.services, lead.settings, alone)
            async with opened(lead.services, lead.settings, profile) as storage:
                await claimed(lead.services, lead.settings, profile, storage)
                lead.lease.check()
                await write_hold(storage, spec.name, spec.hold)
                await fault_point("hold.written")
        await lead.services.catalog.hold_backup(spec.name, spec.hold)
        if spec.hold is None:
            lead.log.info("backup.released", backup=spec.name)
        else:
            lead.log.info("backup.held", backup=spec.name, reason=spec.hold)
        return {"backup": spec.name, "hold": spec.hold}


async def write_hold(storage: Storage, name: str, hold: str | None) -> None:
    """Make this the last word. Nothing is written where it is already."""
    for _ in range(_TRIES):
        numbers = [item.key async for item in storage.list(hold_prefix(name))]
        if numbers and await _read(storage, numbers[-1]) == hold:
            return
        try:
            text = json.dumps({"hold": hold})
            await put_bytes(storage, hold_key(name, len(numbers) + 1), text.encode())
            return
        except ObjectExists:
            continue  # somebody else's word came first
    raise IntegrityError(f"holds of {name} on {storage.address} come and go")


async def with_hold(storage: Storage, backup: Backup) -> Backup:
    """A published backup with the hold that counts now. Raises `IntegrityError`."""
    keys = [item.key async for item in storage.list(hold_prefix(backup.id))]
    if not keys:
        return backup
    return backup.model_copy(update={"hold": await _read(storage, keys[-1])})


async def _read(storage: Storage, key: str) -> str | None:
    try:
        found = json.loads(await get_bytes(storage, key))["hold"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{key} on {storage.address} cannot be read: {error!r}") from error
    return None if found is None else str(found)
