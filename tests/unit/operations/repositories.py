"""Small repositories, made by hand: backups whose objects a test may harm, share or lose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from agent.archive.codec import Compression
from agent.archive.layout import backup_key, chunk_key, journal_key, manifest_key, slice_key
from agent.archive.manifest import ChunkObject, CollectionEntry, Manifest, Segment, SliceRef
from agent.archive.objects import put_framed, put_json
from agent.operations.backup.journal import ArchivedSlice, Entry, FinishedUnit
from agent.storage.base import Storage, put_bytes
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.optime import OpTime

REPLSET = "rs0"
UUID = "0123456789abcdef0123456789abcdef"


def moment(seconds: int) -> OpTime:
    """An OpTime."""
    return OpTime(T=seconds, I=1)


async def make_chunk(storage: Storage, op_id: str, number: int, epoch: int = 1) -> ChunkObject:
    """A stored chunk."""
    plain = b"%d" % number * 50
    segment = Segment(uuid=UUID, length=len(plain), count=1, read_at=moment(20))
    frame = await Compression().frame(plain)
    key = chunk_key(REPLSET, UUID, op_id, epoch, number)
    stored, digest = await put_framed(storage, key, {"kind": "chunk"}, [frame])
    return ChunkObject(
        key=key,
        size_bytes=stored.size_bytes,
        sha256=digest,
        plain_bytes=len(plain),
        segments=(segment,),
    )


async def make_slice(
    storage: Storage, start: int, end: int, epoch: int = 1, *, op_id: str | None = None
) -> SliceRef:
    """A stored slice."""
    frame = await Compression().frame(b"entries")
    key = slice_key(REPLSET, moment(start), moment(end), 1, epoch)
    header = {"kind": "slice", **({"op_id": op_id} if op_id else {})}
    stored, digest = await put_framed(storage, key, header, [frame])
    return SliceRef(
        key=key,
        size_bytes=stored.size_bytes,
        sha256=digest,
        plain_bytes=7,
        count=1,
        start=moment(start),
        start_term=1,
        end=moment(end),
        end_term=1,
    )


async def write_journal(
    storage: Storage,
    name: str,
    epoch: int,
    number: int,
    objects: Sequence[ChunkObject] = (),
    slices: Sequence[SliceRef] = (),
) -> str:
    """One journal entry; answers its key."""
    entry = Entry(
        units=tuple(FinishedUnit(objects=(item,)) for item in objects),
        slices=tuple(ArchivedSlice(ref=ref) for ref in slices),
    )
    key = journal_key(name, REPLSET, epoch, number)
    await put_json(storage, key, json.dumps(entry.to_json()))
    return key


async def write_manifest(
    storage: Storage,
    name: str,
    op_id: str,
    objects: Sequence[ChunkObject],
    slices: Sequence[SliceRef],
    epoch: int = 1,
) -> ReplsetPart:
    """One manifest; answers what `backup.json` says of it."""
    manifest = Manifest(
        backup=name,
        op_id=op_id,
        replset=REPLSET,
        epoch=epoch,
        first_write=moment(10),
        catalogue_at=moment(20),
        read_end=moment(25),
        last_write=moment(30),
        catalogue=(CollectionEntry(ns="shop.orders", uuid=UUID),),
        objects=tuple(objects),
        slices=tuple(slices),
    )
    key = manifest_key(name, REPLSET, epoch)
    size, digest = await put_json(storage, key, manifest.model_dump_json(exclude_none=True))
    return ReplsetPart(
        replset=REPLSET,
        manifest_key=key,
        manifest_sha256=digest,
        manifest_size_bytes=size,
        node="rs0/db1:27017",
        first_write=manifest.first_write,
        read_end=manifest.read_end,
        collections=1,
        documents=manifest.documents,
        objects=len(objects) + len(slices),
        size_bytes=manifest.stored_bytes,
        size_uncompressed_bytes=manifest.plain_bytes,
    )


def backup_document(name: str, op_id: str, *parts: ReplsetPart) -> Backup:
    """What `backup.json` says."""
    return Backup(
        id=name,
        op_id=op_id,
        format_version=1,
        repository_id="r" * 24,
        cluster_id="c" * 24,
        mongodb_version="6.0.5",
        fcv="6.0",
        tidelog_version="0",
        first_write=moment(10),
        last_write=moment(30),
        started_at=datetime(2026, 11, 22, tzinfo=UTC),
        compression="zstd:1",
        replsets=parts,
        size_bytes=sum(part.size_bytes for part in parts),
        size_uncompressed_bytes=sum(part.size_uncompressed_bytes for part in parts),
    )


async def publish(
    storage: Storage,
    name: str,
    op_id: str,
    objects: Sequence[ChunkObject],
    slices: Sequence[SliceRef] = (),
) -> Backup:
    """A published backup of one replica set."""
    part = await write_manifest(storage, name, op_id, objects, slices)
    backup = backup_document(name, op_id, part)
    text = backup.model_dump_json(by_alias=True, exclude_none=True)
    await put_bytes(storage, backup_key(name), text.encode())
    return backup


async def keys_of(storage: Storage, prefix: str = "") -> list[str]:
    """All keys, in order."""
    return [item.key async for item in storage.list(prefix)]
