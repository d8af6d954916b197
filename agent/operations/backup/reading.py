"""Reading units of a snapshot into chunk objects.

A unit is a range of one collection, or a bundle of small collections. Each is read at one OpTime,
in raw batches, compressed batch by batch in threads, and stored as one object (or several, where
the range turned out larger than planned). What the server no longer lets us read at that OpTime is
read again at a later one; what was dropped is reported, and its drop has to be in the oplog.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from agent.archive.codec import Compression
from agent.archive.framing import Frame
from agent.archive.layout import BUNDLES, FORMAT_VERSION, chunk_key
from agent.archive.manifest import ChunkObject, CollectionEntry, Segment
from agent.archive.objects import put_framed
from agent.archive.vault import sealed_by, stored_name
from agent.faults import fault_point
from agent.mongo.catalogue import collection_sizes
from agent.mongo.cursor import (
    EVERYTHING,
    CollectionGone,
    Find,
    SnapshotLost,
    after,
    at_snapshot,
    bounds,
    raw_batches,
)
from agent.mongo.heads import HEAD_DOCUMENTS, read_whole_heads
from agent.mongo.node import Node
from agent.mongo.raw import CursorReply
from agent.operations.backup.moments import Pace, ReadClock
from agent.operations.backup.streaming import AHEAD, Stream
from agent.operations.governor import Governor
from agent.pipeline.budget import ByteBudget
from agent.storage.base import Storage
from agent.wire.namespaces import USERS_AND_ROLES
from agent.wire.optime import OpTime

CHUNK_BYTES: Final = 32 << 20
SMALL_BYTES: Final = 4 << 20
"""A collection up to this size is bundled with others."""
BATCH_BYTES: Final = 8 << 20
UNIT_BUDGET_BYTES: Final = CHUNK_BYTES + 2 * BATCH_BYTES
"""What one reader may hold: a compressed chunk, a reply and the batch cut out of it."""
STREAM_BUDGET_BYTES: Final = 2 * CHUNK_BYTES + (AHEAD + 2) * BATCH_BYTES
"""What the stream of a whole collection may hold: two compressed chunks, the batches that are being
compressed, a reply and the batch cut out of it."""
DOCUMENT_BYTES: Final = 16 << 20
"""The largest document there is, and the largest reply."""
LARGE_UNIT_BUDGET_BYTES: Final = CHUNK_BYTES + 4 * DOCUMENT_BYTES
"""What one reader may hold where a batch is one document: a compressed chunk and the document by
which it is larger than meant, a reply, the batch cut out of it, and that compressed."""
LARGE_STREAM_BUDGET_BYTES: Final = 2 * (CHUNK_BYTES + DOCUMENT_BYTES) + (
    (2 * AHEAD + 2) * DOCUMENT_BYTES
)
"""The same of a stream."""
WHOLE_BYTES: Final = 1 << 30
"""A collection up to this size may be read whole: some four seconds at full speed, which are lost
when an agent dies amidst it."""
PROBE_DOCUMENTS: Final = HEAD_DOCUMENTS
"""What is asked for first of a collection whose size nobody has asked for."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unit:
    """A range of one collection; bounds are BSON documents `{_id: …}`, None is open."""

    entry: CollectionEntry
    sequence: tuple[int, ...] = ()
    minimum: bytes | None = None
    maximum: bytes | None = None
    document_bytes: int = 512
    """Average size, to ask for batches of about `BATCH_BYTES`."""
    whole_bytes: int = 0
    """About the size of a collection that is read whole; 0 for a range."""

    @property
    def is_whole(self) -> bool:
        """Whether it is a collection that could be cut into ranges."""
        return self.whole_bytes > 0

    @property
    def is_stream(self) -> bool:
        """Whether it is so large that it is worth reading on while batches are compressed."""
        return self.whole_bytes >= 2 * CHUNK_BYTES

    @property
    def budget_bytes(self) -> int:
        """What reading it may hold."""
        if self.document_bytes > BATCH_BYTES:
            return LARGE_STREAM_BUDGET_BYTES if self.is_stream else LARGE_UNIT_BUDGET_BYTES
        return STREAM_BUDGET_BYTES if self.is_stream else UNIT_BUDGET_BYTES

    @property
    def is_fuzzy(self) -> bool:
        """The server reads these at no OpTime of our choice."""
        return is_fuzzy(self.entry)


def is_fuzzy(entry: CollectionEntry) -> bool:
    """Capped collections refuse snapshot reads; users and roles ignore them (measured on 6.0)."""
    return entry.is_capped or entry.ns in USERS_AND_ROLES


@dataclass(slots=True)
class Tally:
    """What has been read, for progress and for the history of the operation."""

    bytes: int = 0
    documents: int = 0
    rereads: int = 0

    def add(self, size_bytes: int, documents: int) -> None:
        """Count what was read."""
        self.bytes += size_bytes
        self.documents += documents


@dataclass(slots=True)
class ChunkWriter:
    """Stores chunk objects under keys that no other worker uses."""

    storage: Storage
    replset: str
    op_id: str
    epoch: int
    check: Callable[[], None]
    """Raises when this worker must not write any more."""
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def store(self, owner: str, segments: list[Segment], frames: list[Frame]) -> ChunkObject:
        """Store one object; `owner` is a collection's UUID or `BUNDLES`."""
        self.check()
        key = stored_name(
            self.storage,
            chunk_key(self.replset, owner, self.op_id, self.epoch, next(self._numbers)),
        )
        header = {
            "kind": "chunk",
            "format_version": FORMAT_VERSION,
            "op_id": self.op_id,
            "replset": self.replset,
            "segments": [segment.to_json() for segment in segments],
        }
        await fault_point("snapshot.chunk_read")
        stored, digest = await put_framed(self.storage, key, header, frames)
        await fault_point("snapshot.chunk_stored")
        return ChunkObject(
            key=key,
            size_bytes=stored.size_bytes,
            sha256=digest,
            plain_bytes=sum(frame.plain_bytes for frame in frames),
            segments=tuple(segments),
            key_id=sealed_by(self.storage, key),
        )


class Reader:
    """Turns units into chunk objects."""

    def __init__(
        self,
        node: Node,
        writer: ChunkWriter,
        *,
        compression: Compression,
        budget: ByteBudget,
        read_clock: ReadClock,
        tally: Tally,
        planners_bytes: int = 0,
        governor: Governor | None = None,
    ) -> None:
        """`planners_bytes` of the budget are not to be had before all units are read: planners
        hold them, and wait for readers."""
        self._most_bytes = budget.total_bytes - planners_bytes
        self._governor = governor
        self._node = node
        self._writer = writer
        self._compression = compression
        self._budget = budget
        self._read_clock = read_clock
        self._tally = tally

    async def read_unit(self, unit: Unit) -> list[ChunkObject]:
        """Read and store a range. Raises `CollectionGone` when it was dropped meanwhile, and
        `SnapshotLost` of a collection that cannot be read whole: then read it in ranges."""
        async with self._budget.take(min(unit.budget_bytes, self._most_bytes)):
            if not unit.is_whole:
                return await self._reread(lambda read_at: self._read(unit, read_at))
            read = self._stream if unit.is_stream else self._read
            try:
                return await read(unit, await self._read_clock.now())
            except SnapshotLost:
                # Read whole again, it might come no further: history is as short then as now.
                self._tally.rereads += 1
                raise

    async def read_small(self, entry: CollectionEntry) -> SmallCollection | None:
        """The documents of a small collection; None when it is not small. The caller holds
        `SMALL_BYTES` plus a reply of the budget."""
        return await self._reread(lambda read_at: self._read_small(entry, read_at))

    async def read_tiny(self, entries: Sequence[CollectionEntry]) -> dict[str, SmallCollection]:
        """Collections of a few documents, read in one go, by UUID. One that is not among them has
        more, or has to be read by itself for another reason: with `read_small`, which tells it. The
        caller holds what that one wants."""
        read_at = await self._read_clock.now()
        finds = [_find(Unit(entry), read_at) for entry in entries]
        replies = await read_whole_heads(self._node, finds, most_bytes=SMALL_BYTES)
        found: dict[str, SmallCollection] = {}
        for entry, reply in zip(entries, replies, strict=True):
            if reply is not None and len(reply.documents) <= SMALL_BYTES:
                await self._keep_pace(reply)
                small = self._small(entry, read_at, [reply.documents], reply.count)
                found[entry.uuid] = small
        return found

    async def compressed(self, blocks: list[bytes]) -> Frame:
        """One frame over several blocks."""
        return await self._compression.frame(b"".join(blocks))

    async def store_bundle(self, segments: list[Segment], frames: list[Frame]) -> ChunkObject:
        """Store small collections as one object."""
        return await self._writer.store(BUNDLES, segments, frames)

    async def _reread(self, read: Callable[[OpTime], Awaitable[T]]) -> T:
        read_at, losses = await self._read_clock.now(), 0
        while True:
            try:
                return await read(read_at)
            except SnapshotLost as error:
                losses += 1
                self._tally.rereads += 1
                read_at = await self._read_clock.recover(losses, error)

    async def _read(self, unit: Unit, read_at: OpTime) -> list[ChunkObject]:
        stored: list[ChunkObject] = []
        frames: list[Frame] = []
        documents = 0
        before = Tally()
        try:
            async with raw_batches(self._node, _find(unit, read_at)) as batches:
                async for batch in batches:
                    await self._keep_pace(batch)
                    if batch.count:
                        frames.append(await self._compression.frame(batch.documents))
                        documents += batch.count
                        self._tally.add(len(batch.documents), batch.count)
                        before.add(len(batch.documents), batch.count)
                    if batch.cursor_id and _is_enough(frames):
                        stored.append(await self._store(unit, read_at, frames, documents))
                        frames, documents = [], 0
                    del batch
        except (SnapshotLost, CollectionGone):
            self._tally.add(-before.bytes, -before.documents)
            raise
        if frames:
            stored.append(await self._store(unit, read_at, frames, documents))
        return stored

    async def _stream(self, unit: Unit, read_at: OpTime) -> list[ChunkObject]:
        stream = Stream(
            self._compression.frame,
            lambda frames, documents: self._store(unit, read_at, frames, documents),
            object_bytes=CHUNK_BYTES,
        )
        before = Tally()
        try:
            async with raw_batches(self._node, _find(unit, read_at)) as batches:
                pace = self._read_clock.pace(unit.whole_bytes)
                return await stream.run(self._counted(batches, before, pace))
        except (SnapshotLost, CollectionGone):
            self._tally.add(-before.bytes, -before.documents)
            raise

    async def _counted(
        self, batches: AsyncIterator[CursorReply], tally: Tally, pace: Pace
    ) -> AsyncGenerator[CursorReply]:
        async for batch in batches:
            pace.check(tally.bytes)
            await self._keep_pace(batch)
            for each in (self._tally, tally):
                each.add(len(batch.documents), batch.count)
            yield batch
            del batch

    async def _keep_pace(self, batch: CursorReply) -> None:
        if self._governor is not None:
            await self._governor.read(len(batch.documents))

    async def _store(
        self, unit: Unit, read_at: OpTime, frames: list[Frame], documents: int
    ) -> ChunkObject:
        segment = Segment(
            uuid=unit.entry.uuid,
            length=_plain(frames),
            count=documents,
            read_at=read_at,
            is_fuzzy=unit.is_fuzzy,
            min=encoded_bound(unit.minimum),
            max=encoded_bound(unit.maximum),
        )
        return await self._writer.store(unit.entry.uuid, [segment], frames)

    async def _read_small(self, entry: CollectionEntry, read_at: OpTime) -> SmallCollection | None:
        blocks: list[bytes] = []
        length = documents = 0
        async with raw_batches(self._node, _probe(entry, read_at)) as batches:
            async for batch in batches:
                await self._keep_pace(batch)
                blocks.append(batch.documents)
                length += len(batch.documents)
                documents += batch.count
                if batch.cursor_id and (
                    length > SMALL_BYTES
                    or (len(blocks) == 1 and not await self._may_be_small(entry))
                ):
                    return None
        if length > SMALL_BYTES:
            return None
        return self._small(entry, read_at, blocks, documents)

    def _small(
        self, entry: CollectionEntry, read_at: OpTime, blocks: list[bytes], documents: int
    ) -> SmallCollection:
        length = sum(map(len, blocks))
        self._tally.add(length, documents)
        segment = Segment(
            uuid=entry.uuid,
            length=length,
            count=documents,
            read_at=read_at,
            is_fuzzy=is_fuzzy(entry),
        )
        return SmallCollection(segment, blocks)

    async def _may_be_small(self, entry: CollectionEntry) -> bool:
        # By name: another collection's size by now, perhaps, but reading on tells.
        return (await collection_sizes(self._node, entry.ns)).bytes <= SMALL_BYTES


@dataclass(frozen=True, slots=True)
class SmallCollection:
    """A whole small collection in memory; its segment's offset is set when it is bundled."""

    segment: Segment
    blocks: list[bytes]


def _find(unit: Unit, read_at: OpTime) -> Find:
    entry = unit.entry
    return Find(
        database=entry.ns.partition(".")[0],
        uuid=entry.uuid,
        label=entry.ns,
        read_concern=after(read_at) if unit.is_fuzzy else at_snapshot(read_at),
        options=bounds(unit.minimum, unit.maximum, is_clustered=entry.is_clustered),
        batch_size=max(1, BATCH_BYTES // max(1, unit.document_bytes)),
    )


def _probe(entry: CollectionEntry, read_at: OpTime) -> Find:
    """Little at first, then as much as a reply holds."""
    return replace(_find(Unit(entry), read_at), batch_size=PROBE_DOCUMENTS, more_size=EVERYTHING)


def _plain(frames: list[Frame]) -> int:
    return sum(frame.plain_bytes for frame in frames)


def _is_enough(frames: list[Frame]) -> bool:
    """Whether an object is large enough though its range goes on: by its plain size, and, for
    what does not compress, by what it takes of the budget."""
    return _plain(frames) >= 2 * CHUNK_BYTES or sum(len(f.stored) for f in frames) >= CHUNK_BYTES


def encoded_bound(bound: bytes | None) -> str | None:
    """A bound as manifests have it."""
    return None if bound is None else base64.b64encode(bound).decode()


def decoded_bound(bound: str | None) -> bytes | None:
    """The reverse."""
    return None if bound is None else base64.b64decode(bound)
