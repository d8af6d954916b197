"""Archiving the oplog of a replica set as linked slices: one component for backups and PITR.

What goes in is a position (the last archived entry); what comes out are immutable objects, each
with the entries in `(start, end]`, its header saying so and carrying the digest of the slice before
it. `read` takes what the majority has committed and may close slices by size; `close` ends the
current slice. After a slice is durable, `on_slice` is told, and only then does the archiver go on
from it, so whoever remembers slices in order remembers an unbroken chain. On any error the archiver
is dropped, and the next one begins at the last remembered slice: nothing is lost, since the oplog
still holds what was not stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from bson.raw_bson import RawBSONDocument

from agent.archive.codec import Compression
from agent.archive.framing import Frame
from agent.archive.layout import FORMAT_VERSION, slice_key
from agent.archive.manifest import SliceRef
from agent.archive.objects import put_framed
from agent.archive.vault import sealed_by, stored_name, write_for
from agent.faults import fault_point
from agent.mongo.node import Node
from agent.mongo.oplog import OplogBatch, Position, decoded_entries, read_oplog
from agent.storage.base import Storage
from agent.wire.collections import DATABASE, PREFIX
from agent.wire.optime import OpTime

SLICE_BYTES: Final = 16 << 20
_LOOKED_INTO: Final = 200
"""Entries in a batch up to which each is looked into."""
_IDLE: Final = (
    f"{DATABASE}.{PREFIX}",
    "config.system.sessions",
    "config.actionlog",
    "config.cache.",
    "config.lockpings",
    "config.mongos",
    "config.vectorClock",
)
"""What is written though nobody writes: by ourselves; every five minutes by the server, which notes
its clients' sessions; and all the time by the members of a sharded cluster, which say that they
live. No restore has any of it."""


_RESHARDING: Final = b"config.reshardingOperations\x00"
_SHARDS: Final = b"config.shards\x00"
"""As the namespace of an operation ends."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A durable slice, and which collections were dropped in it."""

    ref: SliceRef
    dropped: frozenset[str]


@dataclass(slots=True)
class _Open:
    """The slice being filled."""

    start: Position
    entries: list[bytes] = field(default_factory=list)
    count: int = 0
    plain_bytes: int = 0
    commands: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    matters: bool = False


class OplogArchiver:
    """Archives from `position` on; `position` is always where the last durable slice ends plus
    what is read but not yet stored."""

    def __init__(
        self,
        node: Node,
        storage: Storage,
        *,
        compression: Compression,
        epoch: int,
        position: Position,
        previous_sha256: str | None,
        on_slice: Callable[[Slice], Awaitable[None]],
        op_id: str | None = None,
    ) -> None:
        """`op_id` is that of the backup that the slices are for, None for PITR's own."""
        self._node = node
        self._storage = storage
        self._compression = compression
        self._epoch = epoch
        self._previous_sha256 = previous_sha256
        self._on_slice = on_slice
        self._writer = {} if op_id is None else {"op_id": op_id}
        self._open = _Open(position)
        self.position = position

    async def read(self, until: OpTime | None = None) -> None:
        """Take the committed entries after `position`, up to and including `until` where given.

        Raises `OplogOverrun` when they are not there any more, and what storing raises.
        """
        async with aclosing(read_oplog(self._node, self.position, until)) as batches:
            async for batch in batches:
                self._take(batch)
                del batch  # else it would stay in memory while the slice is stored
                if self._open.plain_bytes >= SLICE_BYTES:
                    await self.close()

    def _take(self, batch: OplogBatch) -> None:
        current = self._open
        current.entries.append(batch.entries)
        current.count += batch.count
        current.plain_bytes += len(batch.entries)
        current.matters = current.matters or matters(batch)
        for entry in batch.commands:
            name, dropped = describe_command(entry)
            current.commands.add(name)
            current.dropped.update(dropped)
        if self._node.is_config:
            current.commands |= reshaping(batch)
        self.position = batch.last

    @property
    def pending_bytes(self) -> int:
        """Read and not stored yet."""
        return self._open.plain_bytes

    @property
    def pending_matters(self) -> bool:
        """Whether anything read since the last slice would be missed: no-ops and what Tidelog
        writes for itself would not."""
        return self._open.matters

    async def close(self) -> None:
        """Store what was read since the last slice; nothing where nothing was."""
        current = self._open
        if not current.count:
            return
        end = self.position
        frames = await self._compressed(current.entries)
        if not self._writer:
            # Encryption may have been enabled since the last slice; a backup ends as it began.
            await write_for(self._storage, "pitr", self._node.replset)
        key = stored_name(
            self._storage,
            slice_key(
                self._node.replset, current.start.optime, end.optime, end.term or 0, self._epoch
            ),
        )
        described = {
            "kind": "slice",
            "format_version": FORMAT_VERSION,
            "replset": self._node.replset,
            "start": current.start.optime.to_json(),
            "start_term": -1 if current.start.term is None else current.start.term,
            "end": end.optime.to_json(),
            "end_term": end.term,
            "count": current.count,
            "previous_sha256": self._previous_sha256,
            "commands": sorted(current.commands),
            **self._writer,
        }
        stored, digest = await put_framed(self._storage, key, described, frames)
        ref = SliceRef(
            key=key,
            size_bytes=stored.size_bytes,
            sha256=digest,
            plain_bytes=current.plain_bytes,
            count=current.count,
            start=current.start.optime,
            start_term=-1 if current.start.term is None else current.start.term,
            end=end.optime,
            end_term=end.term or 0,
            previous_sha256=self._previous_sha256,
            commands=tuple(sorted(current.commands)),
            key_id=sealed_by(self._storage, key),
        )
        await fault_point("oplog.slice_stored")
        await self._on_slice(Slice(ref, frozenset(current.dropped)))
        self._previous_sha256 = digest
        self._open = _Open(end)

    async def _compressed(self, entries: list[bytes]) -> list[Frame]:
        """The frames of a slice. Each batch, which may have 16 MiB, is let go of as soon as it is
        compressed: nobody needs it any more, whatever becomes of the slice."""
        entries.reverse()
        return [await self._compression.frame(entries.pop()) for _ in range(len(entries))]


def matters(batch: OplogBatch) -> bool:
    """Whether a batch holds anything that a restore would miss. Looked into only where a batch is
    small: an idle replica set writes a no-op every ten seconds, and agents their heartbeats."""
    if batch.count > _LOOKED_INTO:
        return True
    return any(
        entry["op"] != "n" and not entry["ns"].startswith(_IDLE)
        for entry in decoded_entries(batch.entries)
    )


def reshaping(batch: OplogBatch) -> set[str]:
    """What in a batch of the config servers changes the cluster such that earlier backups do not
    reach past it (`agent.wire.timelines.RESHAPING`): the bookkeeping of resharding, which also
    unshards and moves collections; a shard that is added."""
    found = set()
    if _RESHARDING in batch.entries:
        found.add("reshardCollection")
    if _SHARDS in batch.entries and any(map(_adds_shard, decoded_entries(batch.entries))):
        found.add("addShard")
    return found


def _adds_shard(entry: Mapping[str, Any]) -> bool:
    if entry["op"] == "i":
        return bool(entry["ns"] == "config.shards")
    return any(map(_adds_shard, entry["o"].get("applyOps", ())))


def describe_command(entry: RawBSONDocument) -> tuple[str, set[str]]:
    """Name of a command entry and the UUIDs of the collections that it drops. Transactions are
    named `applyOps`, with the commands inside them counted as well by replay, not here."""
    command = entry["o"]
    name = next(iter(command))
    dropped: set[str] = set()
    if name == "drop" and "ui" in entry:
        dropped.add(bytes(entry["ui"]).hex())
    elif name == "renameCollection" and not isinstance(command.get("dropTarget", False), bool):
        dropped.add(bytes(command["dropTarget"]).hex())
    return name, dropped
