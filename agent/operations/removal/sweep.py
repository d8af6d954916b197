"""Finding and removing what nothing refers to: leftovers of backups that failed, were cancelled,
taken over in the middle, or cut short by a crash.

What a published backup names is known first, then the storage is listed, and only then each writer
of what is left over is looked up: an operation that is not over keeps all it wrote, whatever it is.
One that failed before it published cannot publish any more (its lease is over, and the operation
says so), so a minute is enough; in every other case, and where nobody remembers the operation, the
grace of the settings counts, from the end of the operation or from the sweep that saw the leftovers
first. Names are kept as 64-bit hashes, so memory is eight bytes an object; two keys with one hash
would only spare an orphan.

Slices of PITR are not looked at here: retention removes them by their age. The data keys of days
whose slices are gone go here, with the same grace.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from agent.archive.layout import (
    backup_key,
    backup_of_key,
    backup_root,
    chunk_writer_of,
    hold_prefix,
    slice_span_of,
)
from agent.errors import IntegrityError, NotFound, ObjectNotFound
from agent.faults import fault_point
from agent.operations.chains import archived_replsets
from agent.operations.context import LeadContext
from agent.operations.deletion import delete_backup
from agent.operations.inventory import inventory_of, read_backup, read_manifest
from agent.operations.removal.keys import unneeded_keys
from agent.operations.removal.objects import delete_keys, prove_gone
from agent.operations.slices import read_slice_header
from agent.storage.base import ObjectInfo, Storage
from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation, State
from agent.wire.schedule_state import Orphans

ABANDONED_AFTER: Final = timedelta(seconds=60)
"""Far longer than any lease."""
AROUND: Final = timedelta(hours=1)
"""Slices of a backup are looked for from so long before its request to so long after its end."""


@dataclass(slots=True)
class Leftovers:
    """Of one writer."""

    operation: Operation | None = None
    backup: str | None = None
    """The folder of a backup that is not published."""
    keys: list[str] = field(default_factory=list)
    size_bytes: int = 0

    def add(self, item: ObjectInfo) -> None:
        """One more."""
        self.keys.append(item.key)
        self.size_bytes += item.size_bytes


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    objects: int = 0
    size_bytes: int = 0
    writers: list[str] = field(default_factory=list)
    left: dict[str, Orphans] = field(default_factory=dict)
    """What is left alone until its grace is over."""
    listed: list[str] = field(default_factory=list)
    """Published backups that the catalogue did not know, and knows now."""


class Sweep:
    """One sweep of one storage."""

    def __init__(
        self,
        lead: LeadContext,
        storage: Storage,
        *,
        now: datetime,
        known: Mapping[str, Orphans],
        label: str = "",
    ) -> None:
        """`label` tells the leftovers of this storage from those of others."""
        self._lead = lead
        self._storage = storage
        self._now = now
        self._known = known
        self._label = label
        self._grace = timedelta(seconds=lead.settings.policy.sweep_grace)
        self._published: dict[str, Backup] = {}
        self._key_ids: set[str] = set()
        """The data keys that published backups name."""
        self._gone: set[str] = set()
        """Chunks that went with the folder of their backup."""

    @property
    def published(self) -> Iterable[Backup]:
        """The backups that the storage publishes, once `run` has listed them."""
        return self._published.values()

    async def run(self, swept: Swept) -> None:
        """Find, and remove what is due, adding to what was swept. Raises `IntegrityError`, with
        nothing touched, when a published backup cannot say what it needs."""
        named = await self._named()
        found = await self._folders()
        async for writer, item in self._unnamed_chunks(named):
            found.setdefault(f"operation {writer}", Leftovers()).add(item)
        async for writer, item in unneeded_keys(self._storage, self._key_ids, self._now):
            found.setdefault(writer, Leftovers()).add(item)
        await self._look_up(found)
        await fault_point("sweep.found")
        for name in sorted(found):
            await self._judge(name, found[name], swept)

    async def _named(self) -> array[int]:
        """The hashes of all chunks and manifests that published backups name, ascending."""
        hashes: array[int] = array("Q")
        names = {backup_of_key(i.key) async for i in self._storage.list("backups/")}
        # The list may be behind: then the chunks of what it lacks would seem to be nobody's.
        names |= {backup.id for backup in await self._lead.services.catalog.backups()}
        for name in sorted(name for name in names if name is not None):
            backup = await read_backup(self._storage, name)
            if backup is None:
                continue
            self._published[name] = backup
            for share in backup.replsets:
                manifest = await read_manifest(
                    self._storage, share.manifest_key, share.manifest_sha256
                )
                hashes.extend(_hash(item.key) for item in manifest.objects)
                self._key_ids |= manifest.key_ids
            if backup.encryption is not None:
                self._key_ids.update(backup.encryption.key_ids)
        return array("Q", sorted(hashes))

    async def _folders(self) -> dict[str, Leftovers]:
        """Folders that nothing publishes, and what publishing left in the others."""
        found: dict[str, Leftovers] = {}
        async for item in self._storage.list("backups/"):
            name = backup_of_key(item.key)
            if name is None:
                continue
            published = self._published.get(name)
            if published is None:
                found.setdefault(f"backup {name}", Leftovers(backup=name)).add(item)
            elif _is_leftover(item.key, published):
                found.setdefault(f"leftovers of {name}", Leftovers()).add(item)
        return found

    async def _unnamed_chunks(self, named: array[int]) -> AsyncIterator[tuple[str, ObjectInfo]]:
        async for item in self._storage.list("chunks/"):
            writer = chunk_writer_of(item.key)
            if writer is None:
                continue
            key = _hash(item.key)
            place = bisect_left(named, key)
            if place == len(named) or named[place] != key:
                yield writer, item

    async def _look_up(self, found: Mapping[str, Leftovers]) -> None:
        """The operation of each writer, after everything was listed."""
        operations = self._lead.services.operations
        for name, leftovers in found.items():
            kind, _, text = name.rpartition(" ")
            if kind == "operation":
                try:
                    leftovers.operation = await operations.get(text)
                except NotFound:
                    continue
            else:
                leftovers.operation = await operations.find(text, Kind.BACKUP)

    async def _judge(self, name: str, leftovers: Leftovers, swept: Swept) -> None:
        operation = leftovers.operation
        if operation is not None and not operation.state.is_terminal:
            return
        label = f"{name}{self._label}"
        seen = self._known.get(label)
        first_seen = seen.first_seen if seen is not None else self._now
        if self._now < due_at(operation, first_seen, self._grace):
            swept.left[label] = Orphans(
                first_seen=first_seen,
                objects=len(leftovers.keys),
                size_bytes=leftovers.size_bytes,
            )
            return
        self._lead.lease.check()
        objects = await self._remove(leftovers, first_seen)
        swept.objects += objects
        swept.size_bytes += leftovers.size_bytes
        swept.writers.append(label)
        self._lead.log.info("sweep.removed", writer=label, objects=objects)

    async def _remove(self, leftovers: Leftovers, first_seen: datetime) -> int:
        check = self._lead.lease.check
        if leftovers.backup is not None:
            noted = await inventory_of(self._storage, leftovers.backup)
            stray = await self._stray_slices(leftovers, noted.slices, first_seen)
            await delete_keys(self._storage, stray, check=check)
            await prove_gone(self._storage, stray)
            deleted = await delete_backup(
                self._storage, leftovers.backup, known=self._published, check=check
            )
            self._gone |= noted.chunks
            return len(stray) + deleted
        keys = [key for key in leftovers.keys if key not in self._gone]
        await delete_keys(self._storage, keys, check=check)
        await prove_gone(self._storage, keys)
        return len(keys)

    async def _stray_slices(
        self, leftovers: Leftovers, noted: set[str], first_seen: datetime
    ) -> list[str]:
        """Slices that a backup wrote and did not live to note in its journal."""
        operation = leftovers.operation
        if operation is None:
            return []
        begin = (operation.requested_at - AROUND).timestamp()
        ended = operation.finished_at or first_seen
        end = (max(ended, operation.requested_at) + AROUND).timestamp()
        found = []
        for replset in await archived_replsets(self._storage):
            async for item in _slices_between(self._storage, replset, begin, end):
                if item.key in noted:
                    continue
                try:
                    header = await read_slice_header(self._storage, item)
                except (IntegrityError, ObjectNotFound):
                    continue  # whose it is cannot be said, or it is listed and gone
                if header.get("op_id") == operation.id:
                    found.append(item.key)
        return found


def due_at(operation: Operation | None, first_seen: datetime, grace: timedelta) -> datetime:
    """When leftovers may go: of an operation that is over, or that nobody remembers."""
    if operation is None or operation.finished_at is None:
        return first_seen + grace
    never_published = operation.state in (State.FAILED, State.CANCELLED) and not any(
        entry.state == State.PUBLISHING for entry in operation.history
    )
    return operation.finished_at + (ABANDONED_AFTER if never_published else grace)


def _is_leftover(key: str, backup: Backup) -> bool:
    if key == backup_key(backup.id) or key.startswith(hold_prefix(backup.id)):
        return False
    return key.startswith(backup_root(backup.id)) and all(
        key != share.manifest_key for share in backup.replsets
    )


async def _slices_between(
    storage: Storage, replset: str, begin: float, end: float
) -> AsyncIterator[ObjectInfo]:
    day = datetime.fromtimestamp(begin - 86400, UTC).strftime("%Y%m%d")
    async for item in storage.list(f"slices/{replset}/", after=f"slices/{replset}/{day}"):
        span = slice_span_of(item.key)
        if span is None:
            continue
        if end + 86400 < span[0].T:
            return
        if begin <= span[1].T <= end:
            yield item


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest())
