"""Backups and restores in this process, without agents: the snapshot and the restore alone.

What a restore records survives its workers here as it does in the control database, so a test can
cancel one worker anywhere and begin another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, cast

import structlog

from agent.archive.codec import Compression
from agent.archive.layout import backup_key, manifest_key
from agent.archive.manifest import Manifest
from agent.archive.objects import put_json
from agent.clock import SystemClock
from agent.mongo.node import Node
from agent.operations.backup.snapshot import Snapshot, SnapshotOptions
from agent.operations.context import PartContext, Services
from agent.operations.restore.kind import RestoreKind
from agent.storage.base import Storage, put_bytes
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.namespaces import Selection
from agent.wire.operations import Kind, Operation, Part, Progress
from agent.wire.optime import OpTime
from agent.wire.settings import Settings
from agent.wire.specs import RestoreSpec
from agent.wire.timelines import Run
from agent.wire.topology import Topology, unsharded
from tests.support.governing import ungoverned
from tests.support.mongod import ReplicaSet

BUDGET_BYTES = 256 << 20


async def open_node(replset: ReplicaSet) -> Node:
    """The primary, as an agent sees it."""
    return await Node.open(replset.uri_of(replset.primary()))


async def take_backup(
    node: Node,
    storage: Storage,
    name: str = "base",
    *,
    selection: Selection | None = None,
    before_end: Callable[[], Awaitable[None]] | None = None,
) -> Backup:
    """Snapshot one replica set and publish it; `before_end` runs when everything has been read,
    and what it writes belongs to the backup."""
    chosen = selection or Selection()
    options = SnapshotOptions(
        name=name,
        op_id=f"op-{name}",
        epoch=1,
        selection=chosen,
        compression=Compression(),
        readers=3,
        budget_bytes=BUDGET_BYTES,
    )

    async def last_write(read_end: OpTime) -> OpTime:
        if before_end is not None:
            await before_end()
        return max(read_end, await node.note("end of backup"))

    snapshot = Snapshot(
        node, storage, SystemClock(), options, check=lambda: None, report=_ignore_progress
    )
    ends: list[OpTime] = []

    async def noted(read_end: OpTime) -> OpTime:
        ends.append(await last_write(read_end))
        return ends[0]

    outcome = await snapshot.take(noted)
    manifest = Manifest(
        backup=name,
        op_id=options.op_id,
        replset=node.replset,
        epoch=1,
        first_write=outcome.begun.first_write,
        catalogue_at=outcome.begun.catalogue_at,
        read_end=outcome.read_end,
        last_write=ends[0],
        catalogue=outcome.begun.catalogue,
        objects=outcome.objects,
        slices=outcome.slices,
        dropped=outcome.gone,
    )
    return await publish(node, storage, manifest, chosen)


async def publish(
    node: Node, storage: Storage, manifest: Manifest, selection: Selection | None = None
) -> Backup:
    """Write the manifest and `backup.json`."""
    chosen = selection or Selection()
    key = manifest_key(manifest.backup, manifest.replset, 1)
    size, digest = await put_json(storage, key, manifest.model_dump_json(exclude_none=True))
    share = ReplsetPart(
        replset=manifest.replset,
        manifest_key=key,
        manifest_sha256=digest,
        manifest_size_bytes=size,
        node=node.id,
        first_write=manifest.first_write,
        read_end=manifest.read_end,
        collections=len(manifest.catalogue),
        documents=manifest.documents,
        objects=len(manifest.objects) + len(manifest.slices),
        size_bytes=manifest.stored_bytes,
        size_uncompressed_bytes=manifest.plain_bytes,
    )
    backup = Backup(
        id=manifest.backup,
        op_id=manifest.op_id,
        format_version=manifest.format_version,
        repository_id="tests",
        cluster_id=node.cluster_id,
        mongodb_version=node.mongodb_version,
        fcv=node.fcv,
        tidelog_version="0",
        first_write=manifest.first_write,
        last_write=manifest.last_write,
        started_at=datetime.now(UTC),
        ns=chosen.include,
        exclude_ns=chosen.exclude,
        with_users_and_roles=chosen.users_and_roles,
        compression="zstd:1",
        replsets=(share,),
        size_bytes=manifest.stored_bytes,
        size_uncompressed_bytes=manifest.plain_bytes,
    )
    text = backup.model_dump_json(by_alias=True, exclude_none=True)
    await put_bytes(storage, backup_key(backup.id), text.encode())
    return backup


async def _ignore_progress(progress: Progress) -> None:
    return


class _Unclosed:
    """A storage that several workers share: closing is left to the test."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def aclose(self) -> None:
        return


@dataclass
class RestoreRun:
    """One restore operation, whose workers come and go."""

    node: Node
    storage: Storage
    spec: RestoreSpec
    op_id: str = "a" * 24
    name: str = "restore"
    epoch: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    progress: list[Progress] = field(default_factory=list)
    on_record: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, node: Node, storage: Storage, backup: Backup, **spec: Any) -> Self:
        """A restore of this backup to this node's replica set, under whatever name."""
        source = backup.replsets[0].replset
        if source != node.replset:
            spec.setdefault("replset_remapping", {source: node.replset})
        return cls(node, storage, RestoreSpec(backup=backup.id, **spec))

    async def work(self, node: Node | None = None) -> dict[str, Any]:
        """One worker, to its end."""
        self.epoch += 1
        part = self._context(node or self.node)
        return await RestoreKind().work(part)

    def _operation(self, replset: str) -> Operation:
        return Operation(
            id=self.op_id,
            kind=Kind.RESTORE,
            name=self.name,
            spec=self.spec.to_document(),
            requested_at=datetime.now(UTC),
            parts=(Part(replset=replset, epoch=self.epoch, result=dict(self.result)),),
        )

    def _context(self, node: Node) -> PartContext:
        async def record(fields: dict[str, Any], **_: Any) -> None:
            self.on_record()
            self.result.update(fields)

        async def report(progress: Progress) -> None:
            self.progress.append(progress)

        async def refresh() -> Operation:
            return self._operation(node.replset)

        async def open_storage(settings: Settings, profile: str) -> Storage:
            return cast(Storage, _Unclosed(self.storage))

        async def seal(replset: str, at: OpTime) -> None:
            return

        async def runs(replset: str) -> list[Run]:
            return []

        async def topology() -> Topology:
            return unsharded(node.replset)

        services = SimpleNamespace(
            node=node,
            cluster_id=node.cluster_id,
            governor=ungoverned(),
            open_storage=open_storage,
            clock=SystemClock(),
            budget_bytes=BUDGET_BYTES,
            runs=SimpleNamespace(seal=seal, runs=runs),
            cluster=SimpleNamespace(topology=topology, is_sharded=False),
        )
        lease = SimpleNamespace(check=lambda: None, epoch=self.epoch)
        return PartContext(
            services=cast(Services, services),
            settings=Settings(),
            operation=self._operation(node.replset),
            replset=node.replset,
            lease=cast(Any, lease),
            log=structlog.stdlib.get_logger(),
            refresh=refresh,
            report=report,
            record=record,
        )
