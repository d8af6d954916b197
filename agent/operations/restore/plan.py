"""What a restore is going to do: the backup, whose share goes where, the slices, the moment."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.archive.codec import in_thread
from agent.archive.layout import READABLE_VERSION, backup_name_of
from agent.archive.manifest import Manifest, SliceRef
from agent.archive.objects import get_json
from agent.errors import (
    IntegrityError,
    NotFound,
    TargetNotCovered,
    UnsupportedVersion,
)
from agent.operations.authenticity import check_in_clear
from agent.operations.backup.secrecy import unsealed
from agent.operations.inventory import read_document
from agent.storage.base import Storage
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.optime import OpTime
from agent.wire.topology import Member, Topology

_NEAREST: Final = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """One replica set's share of a restore."""

    backup: Backup
    target: Member
    share: ReplsetPart | None
    """None for a shard that the backup has nothing for: it is emptied."""
    manifest: Manifest
    slices: tuple[SliceRef, ...]
    until: OpTime
    """Inclusive."""
    reached: OpTime
    """Where the slices have to reach; earlier than `until` where nothing happened in between."""
    topology: Topology
    """Of the target."""
    shards: Mapping[str, str] = field(default_factory=dict)
    """`{name of a shard in the backup: its name here}`."""

    @property
    def source(self) -> str:
        """The replica set that it comes from, for messages."""
        return self.target.replset if self.share is None else self.share.replset


def nothing(backup: Backup, target: Member, topology: Topology, until: OpTime) -> Plan:
    """The share of a shard that the backup has nothing for."""
    manifest = Manifest(
        backup=backup.id,
        op_id=backup.op_id,
        replset=target.replset,
        epoch=0,
        first_write=until,
        catalogue_at=until,
        read_end=until,
        last_write=until,
        catalogue=(),
        objects=(),
        slices=(),
    )
    return Plan(backup, target, None, manifest, (), until, until, topology)


async def read_backup(storage: Storage, name: str) -> Backup:
    """A published backup, from storage, proven where the repository is encrypted. Raises
    `NotFound` with the nearest names, `IntegrityError`, `KeyUnusable`."""
    document = await read_document(storage, name)
    if document is None:
        names = [found async for found in _names(storage)]
        near = difflib.get_close_matches(name, names, n=_NEAREST, cutoff=0.5)
        near = near or sorted(names)[-_NEAREST:]
        hint = f"nearest: {', '.join(near)}" if near else "there is no backup at all"
        raise NotFound(f"no backup named {name!r} at {storage.address}", hint=hint)
    backup, data = document
    if backup.format_version > READABLE_VERSION:
        raise UnsupportedVersion(
            f"the backup {name} has format version {backup.format_version}, and this agent knows "
            f"up to {READABLE_VERSION}"
        )
    await check_in_clear(storage, backup, data)
    return await unsealed(storage, backup, data)


async def _names(storage: Storage) -> AsyncIterator[str]:
    async for item in storage.list("backups/"):
        name = backup_name_of(item.key)
        if name is not None:
            yield name


async def read_manifest(storage: Storage, share: ReplsetPart) -> Manifest:
    """One replica set's manifest, proven by its digest. Raises `IntegrityError`."""
    text = await get_json(storage, share.manifest_key, sha256=share.manifest_sha256)
    try:
        manifest = await in_thread(Manifest.parse, text)
    except ValueError as error:
        raise IntegrityError(f"{share.manifest_key} cannot be read: {error}") from error
    if manifest.format_version > READABLE_VERSION:
        raise UnsupportedVersion(
            f"{share.manifest_key} has format version {manifest.format_version}, and this agent "
            f"knows up to {READABLE_VERSION}"
        )
    return manifest


def chosen_slices(
    manifest: Manifest,
    wanted: OpTime | None,
    further: Sequence[SliceRef] = (),
    idle_until: OpTime | None = None,
) -> tuple[tuple[SliceRef, ...], OpTime]:
    """The slices to replay and the moment to reach. `further` are slices that continue those of
    the backup; up to `idle_until` the slicer found nothing after them worth a slice, so a moment
    before that is reached where they end. Raises `TargetNotCovered`."""
    until = manifest.last_write if wanted is None else wanted
    if until < manifest.read_end:
        raise TargetNotCovered(
            f"the backup {manifest.backup} was read until {manifest.read_end.in_words()}, and"
            " nothing before "
            "that can be restored from it",
            hint="choose an earlier backup",
        )
    slices = (*manifest.slices, *further)
    covered = max((manifest.last_write, *(s.end for s in slices)))
    if until > covered and idle_until is not None and until <= idle_until:
        until = covered
    if until > covered:
        raise TargetNotCovered(
            f"the backup {manifest.backup} and the slices that continue it reach "
            f"{covered.in_words()}, not {until.in_words()}",
            hint="'ctl list' shows what is covered; the newest writes follow within a slice's span",
        )
    needed = tuple(s for s in slices if s.start < until)
    return needed, until
