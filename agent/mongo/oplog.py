"""Reading the oplog of a node: majority-committed entries only, nothing skipped unseen.

What goes in is the position already archived; what comes out are raw batches of the entries after
it. Each read begins *at* the position, and its first entry must be that very entry, OpTime and
term: if the oplog no longer reaches back, or the entry was rolled back, the first entry differs and
the read raises instead of going on behind a hole. Reads are repeated by the caller rather than
tailed: the oplog is seekable by `ts`, so a repeated read costs a seek, and each one checks
continuity anew.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson.raw_bson import RawBSONDocument

from agent.errors import NodeUnavailable, OplogForked, OplogOverrun
from agent.mongo.cursor import RAW, SnapshotLost, raw_cursor
from agent.mongo.node import Document, Node
from agent.mongo.raw import CursorReply, documents, elements
from agent.mongo.translate import translated
from agent.wire.optime import OpTime

_COMMAND_MARK: Final = b"\x02op\x00\x02\x00\x00\x00c\x00"
"""How `op: "c"` looks in BSON; data may look the same, so a hit is a hint only."""
_USUAL_LAG_S: Final = 60
_UINT64: Final = struct.Struct("<Q")
_INT64: Final = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Position:
    """The last archived entry. `term` is None where archiving begins: there the OpTime itself need
    not be an entry, it only has to be within the oplog's reach."""

    optime: OpTime
    term: int | None = None


@dataclass(frozen=True, slots=True)
class OplogBatch:
    """Concatenated raw entries, at least one, and the position of the last."""

    entries: bytes
    count: int
    last: Position
    commands: tuple[RawBSONDocument, ...]
    """The `c` entries among them, decoded when looked into."""


async def read_oplog(
    node: Node, position: Position, until: OpTime | None = None
) -> AsyncGenerator[OplogBatch]:
    """The committed entries after `position`, up to and including `until` where given, else as far
    as the majority has come. Raises `OplogOverrun`,
    `OplogForked`, `NodeUnavailable`, `PermissionDenied`."""
    span: Document = {"$gte": position.optime.timestamp()}
    if until is not None:
        span["$lte"] = until.timestamp()
    command = {
        "find": "oplog.rs",
        "filter": {"ts": span},
        "batchSize": 10_000_000,
        "readConcern": {"level": "majority"},
    }
    checked = False
    async with aclosing(_batches(node, command)) as batches:
        async for batch in batches:
            entries, count = batch.documents, batch.count
            if not checked:
                if not count:
                    await _check_empty(node, position, command)
                    return
                entries, count = await _continued(node, position, entries, count)
                checked = True
            del batch
            if count:
                described = _described(entries, count)
                del entries
                yield described
                del described


async def _batches(node: Node, command: Document) -> AsyncGenerator[CursorReply]:
    try:
        async with aclosing(raw_cursor(node, "local", command, "the oplog")) as batches:
            async for batch in batches:
                yield batch
                del batch
    except SnapshotLost as error:
        raise OplogOverrun(f"the oplog of {node.host} rolled over: {error.message}") from error


async def _check_empty(node: Node, position: Position, command: Document) -> None:
    """Whether it is right that a read from `position` on yielded nothing, not even its entry."""
    if position.term is None:
        await _check_reach(node, position)
        return
    majority = (await node.hello()).majority
    if majority < position.optime:
        raise NodeUnavailable(
            f"{node.host} has seen commits up to {majority} only, and archiving goes on after "
            f"{position.optime}"
        )
    # A node that lags may have come this far just between the two questions: ask again.
    async with aclosing(_batches(node, command)) as batches:
        async for batch in batches:
            if batch.count:
                return
    raise OplogForked(
        f"{node.host} holds no committed entry at {position.optime} any more: it was rolled back"
    )


async def _continued(
    node: Node, position: Position, entries: bytes, count: int
) -> tuple[bytes, int]:
    """Check that the first entry is the position's own, and leave it out."""
    _, end = next(documents(entries))
    first = _position_of(entries[:end])
    if first.optime == position.optime:
        if position.term is not None and first.term != position.term:
            raise OplogForked(
                f"the oplog entry {position.optime} of term {position.term} was rolled back on "
                f"{node.host}: it is of term {first.term} now"
            )
        return entries[end:], count - 1
    await _check_reach(node, position)
    if position.term is not None:
        raise OplogForked(
            f"the oplog entry {position.optime} was rolled back on {node.host}: its oplog goes on "
            f"at {first.optime}"
        )
    return entries, count


async def _check_reach(node: Node, position: Position) -> None:
    oldest = await oldest_entry(node)
    if oldest > position.optime:
        raise OplogOverrun(f"the oplog of {node.host} begins at {oldest}, after {position.optime}")


async def oldest_entry(node: Node) -> OpTime:
    """Where the oplog of the node begins."""
    with translated("reading the oldest oplog entry"):
        reply = await node.command(
            "local", {"find": "oplog.rs", "sort": {"$natural": 1}, "limit": 1}, codec_options=RAW
        )
    first = reply["cursor"]["firstBatch"][0]
    return OpTime.of(first["ts"])


async def window_left(node: Node, position: OpTime) -> float:
    """Which share of the oplog's window lies before `position`: 1 when nothing newer is in it, 0
    when `position` is about to fall off or has. Being behind by less than a minute counts as
    nothing: the oplog of a young replica set is no longer than that."""
    newest = (await node.hello()).last_applied
    oldest = await oldest_entry(node)
    if oldest <= position and newest.T - position.T < _USUAL_LAG_S:
        return 1.0
    return max(0.0, (position.T - oldest.T) / max(1, newest.T - oldest.T))


async def oplog_span(node: Node) -> tuple[OpTime, OpTime]:
    """Where the oplog of the node begins and ends."""
    newest = (await node.hello()).last_applied
    return await oldest_entry(node), newest


def _described(entries: bytes, count: int) -> OplogBatch:
    last = 0
    for start, _ in documents(entries):
        last = start
    commands = tuple(_commands(entries)) if _COMMAND_MARK in entries else ()
    return OplogBatch(entries, count, _position_of(entries[last:]), commands)


def _commands(entries: bytes) -> Iterator[RawBSONDocument]:
    for start, end in documents(entries):
        if entries.find(_COMMAND_MARK, start, end) >= 0:
            entry = RawBSONDocument(entries[start:end], RAW)
            if entry["op"] == "c":
                yield entry


def decoded_entries(entries: bytes) -> Iterator[RawBSONDocument]:
    """Each entry, decoded when looked into: for few entries, never on a hot path."""
    for start, end in documents(entries):
        yield RawBSONDocument(entries[start:end], RAW)


def _position_of(entry: bytes) -> Position:
    optime, term = None, 0  # the very first entry of a replica set has no term
    for element in elements(entry):
        if element.name == b"ts":
            optime = OpTime.unpack(_UINT64.unpack_from(entry, element.start)[0])
        elif element.name == b"t":
            term = _INT64.unpack_from(entry, element.start)[0]
    if optime is None:
        raise OplogOverrun("an oplog entry without a ts was read")
    return Position(optime, term)


async def open_transactions_start(node: Node) -> OpTime | None:
    """The oldest `startOpTime` of transactions that are in progress or prepared: entries that a
    replay needs begin there. None when there are none."""
    command: dict[str, Any] = {
        "find": "transactions",
        "filter": {"state": {"$in": ["prepared", "inProgress"]}},
        "projection": {"startOpTime": 1},
        "readConcern": {"level": "majority"},
        "batchSize": 100_000,
    }
    oldest: OpTime | None = None
    async with aclosing(raw_cursor(node, "config", command, "config.transactions")) as batches:
        async for batch in batches:
            for start, end in documents(batch.documents):
                record = bson.decode(batch.documents[start:end])
                if "startOpTime" in record:
                    begun = OpTime.of(record["startOpTime"]["ts"])
                    oldest = begun if oldest is None else min(oldest, begun)
    return oldest
