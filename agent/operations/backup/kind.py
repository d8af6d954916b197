"""`ctl backup`: one snapshot a replica set, one `last_write` for all, published at the end.

The lead checks the storages, waits until every part has read all, chooses `last_write`, and when
all parts have archived up to it proves that every object is there and writes `backup.json` (I1).
"""

from __future__ import annotations

from typing import Any

from agent.archive.codec import Compression
from agent.archive.layout import backup_key
from agent.archive.vault import write_for
from agent.errors import ConfigError, ObjectNotFound, StorageUnavailable
from agent.faults import fault_point
from agent.operations.backup.agreement import (
    agreed_end,
    check_cluster,
    check_served,
    choose_end,
    read_end_of,
)
from agent.operations.backup.publication import (
    assembled,
    catalogued,
    forget_journals,
    list_backup,
    prove_stored,
    publish_on,
)
from agent.operations.backup.resuming import tell_resumed
from agent.operations.backup.secrecy import prepare_key, sealed
from agent.operations.backup.share import write_share
from agent.operations.backup.snapshot import DEFAULT_READERS, Snapshot, SnapshotOptions
from agent.operations.backup.targets import LOST, for_each, losses_of, open_targets, whole_story
from agent.operations.balancing import keep_still, let_go
from agent.operations.context import LeadContext, PartContext
from agent.operations.copies import opened
from agent.operations.repository import claimed
from agent.storage.base import Storage
from agent.wire.backups import Backup
from agent.wire.namespaces import Selection, check_patterns
from agent.wire.operations import Kind, Operation
from agent.wire.profiles import storage_of
from agent.wire.specs import BackupSpec


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
                raise ConfigError(
                    f"{profile} leads to the same repository as {other}",
                    hint="name one of them: what one holds, the other holds",
                )

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
            options = _options(part, spec)
            snapshot = Snapshot(
                part.services.node,
                storage,
                part.services.clock,
                options,
                check=part.lease.check,
                report=part.report,
                resumed=lambda kept: tell_resumed(part, kept, is_read=known_end is not None),
            )
            outcome = await snapshot.take(
                lambda read_end: agreed_end(part, read_end), known_end=known_end
            )
            return await write_share(part, storage, outcome, options.compression)
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
                backup = assembled(lead, operation, spec, profile, marker.repository_id)
                key_ids: set[str] = set()
                for replset in backup.replsets:
                    key_ids |= await prove_stored(storage, replset, backup.last_write)
                backup = await sealed(storage, backup, key_ids)
                lead.lease.check()
                await fault_point("backup.before_publish")
                await publish_on(storage, backup)
                published[profile], addresses[profile] = backup, storage.address

        left = [profile for profile in spec.targets if profile not in lost]
        if not left:
            raise StorageUnavailable(
                f"no storage has all parts of the backup: {whole_story(lost)}",
                hint="'ctl storage check' says what is wrong with each",
            )
        _, late = await for_each(left, publish)
        lost |= late
        backup = catalogued(list(published.values()))
        await list_backup(lead, backup)
        for profile in published:
            async with opened(services, lead.settings, profile) as storage:
                await forget_journals(storage, backup)
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


async def _check_name(storage: Storage, name: str) -> None:
    try:
        await storage.stat(backup_key(name))
    except ObjectNotFound:
        return
    raise ConfigError(f"a backup named {name} exists at {storage.address}")


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
