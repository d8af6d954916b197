"""`ctl backup`: one snapshot a replica set, one `last_write` for all, published at the end.

The lead checks the storages, waits until every part has read all, chooses `last_write`, and when
all parts have archived up to it proves that every object is there and writes `backup.json` (I1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import structlog

from agent.archive.codec import Compression, in_thread
from agent.archive.layout import FORMAT_VERSION, backup_key, journal_prefix, manifest_key
from agent.archive.manifest import ChunkObject, Manifest, SliceRef
from agent.archive.objects import get_public_json, put_json
from agent.archive.vault import sealed_by, stored_name, write_for
from agent.errors import (
    ConfigError,
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    Permanent,
    Refused,
    StorageUnavailable,
    StoreUnavailable,
)
from agent.faults import fault_point
from agent.operations.backup.agreement import (
    agreed_end,
    check_cluster,
    check_served,
    choose_end,
    read_end_of,
)
from agent.operations.backup.resuming import tell_resumed
from agent.operations.backup.secrecy import prepare_key, sealed
from agent.operations.backup.snapshot import (
    DEFAULT_READERS,
    Snapshot,
    SnapshotOptions,
    SnapshotOutcome,
)
from agent.operations.backup.targets import LOST, for_each, losses_of, open_targets, whole_story
from agent.operations.balancing import keep_still, let_go
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import opened
from agent.operations.repository import claimed
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.tasks import TaskGroup
from agent.version import VERSION
from agent.wire.backups import Backup, Copy, ReplsetPart
from agent.wire.namespaces import Selection, check_patterns
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.profiles import storage_of
from agent.wire.specs import BackupSpec
from agent.wire.timelines import reshaped_by

LISTED_COLLECTIONS: Final = 5000
LISTED_BYTES: Final = 1 << 20
"""What the lists of all parts together may take in the operation's document."""
_ENTRY_BYTES: Final = 80
"""Of one of them beside its name, in BSON."""
_STATS_AT_ONCE: Final = 16

log = structlog.stdlib.get_logger()


class BackupKind:
    """Logical backups."""

    kind = Kind.BACKUP

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """The storage must answer and be ours; every replica set gets a part."""
        spec = BackupSpec.from_document(operation.spec)
        check_patterns(spec.ns + spec.exclude_ns)
        for profile in spec.targets:
            storage_of(lead.settings, profile)

        repositories: dict[str, str] = {}

        async def check(profile: str) -> None:
            async with opened(lead.services, lead.settings, profile) as storage:
                marker = await claimed(lead.services, lead.settings, profile, storage)
                await _check_name(storage, operation.name)
                await prepare_key(lead, storage, operation, is_alone=len(spec.targets) == 1)
            other = repositories.setdefault(marker.repository_id, profile)
            if other != profile:
                raise ConfigError(f"{profile} leads to the same repository as {other}")

        _, lost = await for_each(spec.targets, check)
        if lost:
            await lead.services.operations.merge_result(
                operation.id, lead.lease.epoch, {LOST: lost}
            )
        replsets = (await lead.services.cluster.topology()).replsets
        await check_cluster(lead, ())
        await check_served(lead, replsets)
        await keep_still(
            lead.services, operation.id, within_s=lead.settings.backup.timeouts.balancer_stop
        )
        return replsets

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """Choose `last_write` when every part has read all; the balancer may go on then."""
        if await choose_end(lead, operation):
            await let_go(lead.services, operation.id)

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Snapshot this replica set and write its manifest."""
        spec = BackupSpec.from_document(part.operation.spec)
        storage = await open_targets(part, spec)
        try:
            await write_for(storage, "backup", part.operation.id)
            known_end = read_end_of(part.operation, part.replset)
            snapshot = Snapshot(
                part.services.node,
                storage,
                part.services.clock,
                _options(part, spec),
                check=part.lease.check,
                report=part.report,
                resumed=lambda kept: tell_resumed(part, kept, is_read=known_end is not None),
            )
            outcome = await snapshot.take(
                lambda read_end: agreed_end(part, read_end), known_end=known_end
            )
            return await _write_manifest(part, storage, outcome)
        finally:
            await storage.aclose()

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Prove that everything is there, then publish, on each storage; then for all to see."""
        spec = BackupSpec.from_document(operation.spec)
        services, lost = lead.services, losses_of(operation)
        published: dict[str, Backup] = {}
        addresses: dict[str, str] = {}

        async def publish(profile: str) -> None:
            async with opened(services, lead.settings, profile) as storage:
                marker = await claimed(services, lead.settings, profile, storage)
                backup = _assembled(lead, operation, spec, profile, marker.repository_id)
                key_ids: set[str] = set()
                for replset in backup.replsets:
                    key_ids |= await _prove_stored(storage, replset, backup.last_write)
                backup = await sealed(storage, backup, key_ids)
                lead.lease.check()
                await fault_point("backup.before_publish")
                await _publish(storage, backup)
                published[profile], addresses[profile] = backup, storage.address

        left = [profile for profile in spec.targets if profile not in lost]
        if not left:
            raise StorageUnavailable(
                f"no storage has all parts of the backup: {whole_story(lost)}",
                hint="'ctl storage check' says what is wrong with each",
            )
        _, late = await for_each(left, publish)
        lost |= late
        backup = _catalogued(list(published.values()))
        await _list(lead, backup)
        for profile in published:
            async with opened(services, lead.settings, profile) as storage:
                await _forget_journals(storage, backup)
        copies: list[dict[str, Any]] = [
            {"profile": profile, "status": "done", "storage_path": addresses[profile]}
            for profile in published
        ]
        copies += [
            {"profile": profile, "status": "failed", "error": why["message"], "hint": why["hint"]}
            for profile, why in lost.items()
        ]
        first = next(iter(addresses.values()))
        return {**backup.to_result(), "storage_path": first, "copies": copies, LOST: lost}


async def _list(lead: LeadContext, backup: Backup) -> None:
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


async def _check_name(storage: Storage, name: str) -> None:
    try:
        await storage.stat(backup_key(name))
    except ObjectNotFound:
        return
    raise ConfigError(f"a backup named {name} exists at {storage.address}")


def _catalogued(published: list[Backup]) -> Backup:
    """One backup in all its repositories."""
    if len(published) == 1:
        return published[0]
    copies = tuple(
        Copy(profile=backup.profile, repository_id=backup.repository_id) for backup in published
    )
    return published[0].model_copy(update={"copies": copies})


def _options(part: PartContext, spec: BackupSpec) -> SnapshotOptions:
    settings = part.settings.backup
    level = spec.compression_level or settings.compression_level
    return SnapshotOptions(
        name=part.operation.name,
        op_id=part.operation.id,
        epoch=part.lease.epoch,
        selection=Selection(
            spec.ns,
            spec.exclude_ns,
            spec.with_users_and_roles or not spec.is_selective,
            routing=part.services.node.is_config,
        ),
        compression=Compression(spec.compression or settings.stored_compression, level),
        readers=spec.num_parallel_collections
        or settings.num_parallel_collections
        or DEFAULT_READERS,
        budget_bytes=part.services.budget_bytes,
        governor=part.services.governor,
    )


async def _write_manifest(
    part: PartContext, storage: Storage, outcome: SnapshotOutcome
) -> dict[str, Any]:
    for ref in outcome.slices:
        cause = reshaped_by(ref.commands)
        if cause is not None:
            raise Refused(f"{cause} while the backup ran", hint="take the backup again")
    operation = await part.refresh()
    last_write = OpTime.from_document(operation.result["last_write"])
    key = stored_name(storage, manifest_key(operation.name, part.replset, part.lease.epoch))
    manifest = Manifest(
        backup=operation.name,
        op_id=operation.id,
        replset=part.replset,
        epoch=part.lease.epoch,
        first_write=outcome.begun.first_write,
        catalogue_at=outcome.begun.catalogue_at,
        read_end=outcome.read_end,
        last_write=last_write,
        catalogue=outcome.begun.catalogue,
        objects=outcome.objects,
        slices=outcome.slices,
        dropped=outcome.gone,
        key_id=sealed_by(storage, key),
    )
    part.lease.check()
    size, digest = await put_json(
        storage,
        key,
        manifest.model_dump_json(exclude_none=True),
        public=manifest.public().model_dump_json(exclude_none=True),
    )
    await fault_point("snapshot.manifest_written")
    share = ReplsetPart(
        replset=part.replset,
        shard=part.services.node.shard,
        is_config=part.services.node.is_config,
        manifest_key=key,
        manifest_sha256=digest,
        manifest_size_bytes=size,
        node=part.services.node.id,
        first_write=manifest.first_write,
        read_end=manifest.read_end,
        collections=len(manifest.catalogue),
        documents=manifest.documents,
        objects=len(manifest.objects) + len(manifest.slices),
        size_bytes=manifest.stored_bytes,
        size_uncompressed_bytes=manifest.plain_bytes,
    )
    return {
        "share": share.to_document(),
        "rereads": outcome.tally.rereads,
        "compression": str(_options(part, BackupSpec.from_document(operation.spec)).compression),
        "mongodb_version": part.services.node.mongodb_version,
        "fcv": part.services.node.fcv,
        "collections": listed(manifest, LISTED_BYTES // max(1, len(operation.parts))),
    }


def listed(manifest: Manifest, most_bytes: int) -> list[dict[str, Any]]:
    """Per collection what `describe-backup --with-collections` shows, of the first so many: a
    document of the control database is bounded, whatever the cluster holds."""
    first = manifest.catalogue[:LISTED_COLLECTIONS]
    documents = dict.fromkeys((entry.uuid for entry in first), 0)
    plain = dict(documents)
    for item in manifest.objects:
        for segment in item.segments:
            if segment.uuid in documents:
                documents[segment.uuid] += segment.count
                plain[segment.uuid] += segment.length
    found = []
    for entry in first:
        most_bytes -= _ENTRY_BYTES + len(entry.ns.encode())
        if most_bytes < 0:
            break
        found.append(
            {
                "ns": entry.ns,
                "documents": documents[entry.uuid],
                "size": plain[entry.uuid],
                "indexes": len(entry.indexes),
            }
        )
    return found


def _assembled(
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


async def _prove_stored(storage: Storage, share: ReplsetPart, last_write: OpTime) -> set[str]:
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


async def _publish(storage: Storage, backup: Backup) -> None:
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


async def _forget_journals(storage: Storage, backup: Backup) -> None:
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
