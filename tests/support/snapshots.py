"""Taking snapshots in the test's own process, and looking into what they stored."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import bson
import pytest
from bson.raw_bson import RawBSONDocument

from agent.archive.codec import Compression
from agent.archive.manifest import ChunkObject, Segment
from agent.archive.objects import fetch_framed
from agent.clock import SystemClock
from agent.mongo.node import Node
from agent.mongo.raw import documents
from agent.operations.backup import bundling, planning, reading
from agent.operations.backup.snapshot import Snapshot, SnapshotOptions, SnapshotOutcome
from agent.storage.base import Storage
from agent.wire.namespaces import Selection
from agent.wire.operations import Progress
from agent.wire.optime import OpTime
from tests.support.mongod import MongodNode, ReplicaSet

NAME = "2026-11-22T03:08:36Z"
OP_ID = "0123456789abcdef01234567"


@asynccontextmanager
async def open_node(replset: ReplicaSet, member: MongodNode | None = None) -> AsyncIterator[Node]:
    """What an agent beside `member` (the primary) would work with."""
    chosen = await asyncio.to_thread(replset.primary) if member is None else member
    node = await Node.open(replset.uri_of(chosen))
    try:
        yield node
    finally:
        await node.aclose()


def small_units(
    patch: pytest.MonkeyPatch, chunk_bytes: int = 64 << 10, *, whole_bytes: int = 0
) -> None:
    """Make little data enough for many units, each of several batches."""
    patch.setattr(reading, "CHUNK_BYTES", chunk_bytes)
    patch.setattr(planning, "CHUNK_BYTES", chunk_bytes)
    patch.setattr(reading, "SMALL_BYTES", chunk_bytes // 8)
    patch.setattr(reading, "BATCH_BYTES", chunk_bytes // 4)
    patch.setattr(bundling, "BATCH_BYTES", chunk_bytes // 4)
    patch.setattr(bundling, "CHUNK_BYTES", chunk_bytes)
    patch.setattr(reading, "PROBE_DOCUMENTS", 2)
    # What this much data is in earnest: too large to be read whole.
    patch.setattr(planning, "WHOLE_BYTES", whole_bytes)


def make_snapshot(
    node: Node,
    storage: Storage,
    *,
    epoch: int = 1,
    readers: int = 3,
    selection: Selection | None = None,
    compression: Compression | None = None,
    budget_bytes: int = 256 << 20,
    on_progress: Callable[[Progress], None] | None = None,
    on_resumed: Callable[[Progress], None] = lambda _: None,
) -> Snapshot:
    """A snapshot of one backup; each `epoch` is one worker's."""

    async def report(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(progress)

    async def resumed(kept: Progress) -> None:
        on_resumed(kept)

    options = SnapshotOptions(
        name=NAME,
        op_id=OP_ID,
        epoch=epoch,
        selection=selection or Selection(),
        compression=compression or Compression(),
        readers=readers,
        budget_bytes=budget_bytes,
    )
    clock, check = SystemClock(), lambda: None
    return Snapshot(node, storage, clock, options, check=check, report=report, resumed=resumed)


async def take(node: Node, storage: Storage, **options: Any) -> SnapshotOutcome:
    """A whole snapshot, archived up to the end of its reading."""

    async def at_once(read_end: OpTime) -> OpTime:
        return read_end

    return await make_snapshot(node, storage, **options).take(at_once)


@dataclass(frozen=True)
class Part:
    """The documents of one collection in one object."""

    segment: Segment
    raw: list[bytes]

    @property
    def ids(self) -> list[Any]:
        """The `_id`s."""
        return [RawBSONDocument(one)["_id"] for one in self.raw]

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The bounds as values; None is open."""
        low, high = (
            None if bound is None else bson.decode(base64.b64decode(bound))["_id"]
            for bound in (self.segment.min, self.segment.max)
        )
        return low, high


async def parts_of(storage: Storage, objects: tuple[ChunkObject, ...]) -> dict[str, list[Part]]:
    """What is in the objects, by collection UUID; every claim of the chunk table is checked."""
    found: dict[str, list[Part]] = {}
    for item in objects:
        header, frames = await fetch_framed(
            storage, item.key, size_bytes=item.size_bytes, sha256=item.sha256
        )
        assert header["segments"] == [segment.to_json() for segment in item.segments]
        plain = b"".join(frames)
        assert len(plain) == item.plain_bytes == sum(s.length for s in item.segments)
        for segment in item.segments:
            own = plain[segment.offset : segment.offset + segment.length]
            raw = [own[start:end] for start, end in documents(own)]
            assert len(raw) == segment.count
            found.setdefault(segment.uuid, []).append(Part(segment, raw))
    return found


async def contents(storage: Storage, outcome: SnapshotOutcome) -> dict[str, list[bytes]]:
    """All documents of each collection, by the name it has in the catalogue."""
    parts = await parts_of(storage, outcome.objects)
    names = {entry.uuid: entry.ns for entry in outcome.begun.catalogue}
    return {names[uuid]: [raw for part in own for raw in part.raw] for uuid, own in parts.items()}


async def oplog_of(storage: Storage, outcome: SnapshotOutcome) -> list[RawBSONDocument]:
    """The entries of the slices; every claim of the slice table is checked, and that they link."""
    entries: list[RawBSONDocument] = []
    end, previous = outcome.begun.first_write, None
    for ref in outcome.slices:
        assert (ref.start, ref.previous_sha256) == (end, previous), "the slices do not link"
        header, frames = await fetch_framed(
            storage, ref.key, size_bytes=ref.size_bytes, sha256=ref.sha256
        )
        assert (header["kind"], header["previous_sha256"]) == ("slice", previous)
        plain = b"".join(frames)
        own = [RawBSONDocument(plain[start:stop]) for start, stop in documents(plain)]
        assert (len(own), len(plain)) == (ref.count, ref.plain_bytes)
        assert all(ref.start < OpTime.of(one["ts"]) <= ref.end for one in own)
        assert OpTime.of(own[-1]["ts"]) == ref.end
        entries += own
        end, previous = ref.end, ref.sha256
    return entries
