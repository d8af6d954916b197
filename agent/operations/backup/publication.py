"""Publishing a backup: proof that every object is there, then `backup.json`, then the catalogue.

`backup.json` is what makes a backup (I1). It is a function of the operation alone, so of two leads
that publish one after the other the second finds its own words. What follows it (the catalogue of
the control database, the journals that nobody needs any more) never makes the backup a failed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import structlog

from agent.archive.codec import in_thread
from agent.archive.layout import FORMAT_VERSION, backup_key, journal_prefix
from agent.archive.manifest import ChunkObject, Manifest, SliceRef
from agent.archive.objects import get_public_json
from agent.errors import (
    ConfigError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    Permanent,
    StoreUnavailable,
)
from agent.faults import fault_point
from agent.operations.context import LeadContext
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.tasks import TaskGroup
from agent.version import VERSION
from agent.wire.backups import Backup, Copy, ReplsetPart
from agent.wire.operations import Operation
from agent.wire.optime import OpTime
from agent.wire.specs import BackupSpec

_STATS_AT_ONCE: Final = 16

log = structlog.stdlib.get_logger()


def assembled(
    lead: LeadContext, operation: Operation, spec: BackupSpec, profile: str, repository_id: str
) -> Backup:
    """The backup document: a function of the operation alone, so that two leads write the same."""
    shares = [ReplsetPart.from_document(part.result["share"]) for part in operation.parts]
    first = operation.parts[0].result
    return Backup(
        id=operation.name,
        op_id=operation.id,
        profile=profile,
        format_version=FORMAT_VERSION,
        repository_id=repository_id,
        cluster_id=lead.services.cluster_id,
        mongodb_version=first["mongodb_version"],
        fcv=first["fcv"],
        tidelog_version=VERSION,
        first_write=min(share.first_write for share in shares),
        last_write=OpTime.from_document(operation.result["last_write"]),
        started_at=operation.requested_at,
        ns=spec.ns,
        exclude_ns=spec.exclude_ns,
        with_users_and_roles=spec.with_users_and_roles or not spec.is_selective,
        compression=first["compression"],
        hold=spec.hold,
        replsets=tuple(shares),
        size_bytes=sum(share.size_bytes for share in shares),
        size_uncompressed_bytes=sum(share.size_uncompressed_bytes for share in shares),
    )


async def prove_stored(storage: Storage, share: ReplsetPart, last_write: OpTime) -> set[str]:
    """Every object of one replica set is there with its size, and it was read and archived to one
    end with the others. Digests were taken of what was sent; that a storage keeps what it was sent
    is what `verify` and restores prove. Answers the data keys that they are encrypted with."""
    text = await get_public_json(storage, share.manifest_key, sha256=share.manifest_sha256)
    manifest = await in_thread(Manifest.parse, text)
    if not manifest.read_end <= manifest.last_write == last_write:
        raise IntegrityError(
            f"{share.manifest_key} was read until {manifest.read_end} and archived until "
            f"{manifest.last_write}, and the backup is to end at {last_write}"
        )
    wanted: Iterator[ChunkObject | SliceRef] = iter((*manifest.objects, *manifest.slices))

    async def prove() -> None:
        for item in wanted:
            try:
                found = await storage.stat(item.key)
            except ObjectNotFound as error:
                raise IntegrityError(f"{item.key} is missing from {storage.address}") from error
            if found.size_bytes != item.size_bytes:
                raise IntegrityError(
                    f"{item.key} on {storage.address} has {found.size_bytes} bytes and should "
                    f"have {item.size_bytes}"
                )

    async with TaskGroup() as group:
        for _ in range(_STATS_AT_ONCE):
            group.create_task(prove())
    return manifest.key_ids


async def publish_on(storage: Storage, backup: Backup) -> None:
    """Write `backup.json`. That another lead has written the same before is success."""
    key = backup_key(backup.id)
    data = backup.model_dump_json(by_alias=True, exclude_none=True, indent=1).encode()
    try:
        await put_bytes(storage, key, data)
    except ObjectExists:
        if await get_bytes(storage, key) != data:
            raise IntegrityError(
                f"{key} on {storage.address} exists and is another backup's"
            ) from None


async def forget_journals(storage: Storage, backup: Backup) -> None:
    """A published backup needs its journals no more. It is published, so a storage that refuses to
    delete does not make it fail."""
    try:
        keys = [
            item.key
            for share in backup.replsets
            async for item in storage.list(journal_prefix(backup.id, share.replset))
        ]
        await storage.delete(keys)
    except Permanent as error:
        log.warning("backup.journals_kept", backup=backup.id, error=str(error))


def catalogued(published: list[Backup]) -> Backup:
    """One backup in all its repositories."""
    if len(published) == 1:
        return published[0]
    copies = tuple(
        Copy(profile=backup.profile, repository_id=backup.repository_id) for backup in published
    )
    return published[0].model_copy(update={"copies": copies})


async def list_backup(lead: LeadContext, backup: Backup) -> None:
    """For all to see. Storage publishes it already, so nothing that hinders this makes the backup
    a failed one: it is tried again, by this lead or the next. Raises `StoreUnavailable`, `Conflict`
    where another is listed under the name."""
    try:
        await fault_point("backup.published")
        await lead.services.catalog.publish_backup(backup)
    except (Permanent, ConfigError) as error:
        raise StoreUnavailable(
            f"the backup {backup.id} is on storage and cannot be listed now: {error}",
            hint="if this goes on, the next 'ctl cleanup' lists it, or 'ctl config --force-resync'",
        ) from error
