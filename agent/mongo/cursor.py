"""Reading collections as raw batches.

A cursor lives inside an explicit session (which pins it, and whose end lets the server forget it)
on a direct connection (a `getMore` must reach the node that opened it). Reading is by UUID, never
by name: after a rename or a drop, a name would silently answer nothing or another collection, where
a UUID fails.

A batch may have 16 MiB, so whoever passes it on lets go of it (`del`) before the next one is asked
for: each reader would hold two otherwise.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from bson import Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from agent.errors import NodeUnavailable, PermissionDenied
from agent.mongo.node import Document, Node
from agent.mongo.raw import CursorReply, cut_cursor_reply, elements
from agent.mongo.translate import (
    CAPPED_POSITION_LOST,
    NAMESPACE_NOT_FOUND,
    QUERY_PLAN_KILLED,
    SNAPSHOT_TOO_OLD,
    SNAPSHOT_UNAVAILABLE,
    CommandFailed,
    translated,
)
from agent.wire.optime import OpTime

RAW: Final = CodecOptions(document_class=RawBSONDocument)
BATCH_TIMEOUT_S: Final = 90.0
_LENGTH: Final = struct.Struct("<i")
_OTHER_NAMESPACE: Final = "cursor belongs to a different namespace"
EVERYTHING: Final = 10_000_000
"""A batch size in documents that only the 16 MiB of a reply limit."""


class CollectionGone(CommandFailed):
    """The collection was dropped (or moved to another UUID) since the catalogue was read."""


class SnapshotLost(CommandFailed):
    """The collection cannot be read on at this OpTime: it changed its catalogue entry, history is
    too short, or a capped one overwrote what comes next. Read it again at a later OpTime."""


def uuid_binary(uuid_hex: str) -> Binary:
    """A collection UUID as commands want it."""
    return Binary(bytes.fromhex(uuid_hex), 4)


@dataclass(frozen=True, slots=True)
class Find:
    """What to read: a collection by UUID, a read concern, and optional bounds and shape."""

    database: str
    uuid: str
    label: str
    """For messages: the name it had when it was catalogued."""
    read_concern: Document
    options: Document = field(default_factory=dict)
    batch_size: int = EVERYTHING
    more_size: int | None = None
    """Of the batches behind the first, if it differs."""

    def command(self) -> Document:
        """The `find` command."""
        return {
            "find": uuid_binary(self.uuid),
            "batchSize": self.batch_size,
            "readConcern": self.read_concern,
            **self.options,
        }


def at_snapshot(read_at: OpTime) -> Document:
    """Read concern: exactly as of an OpTime."""
    return {"level": "snapshot", "atClusterTime": read_at.timestamp()}


def after(read_at: OpTime) -> Document:
    """Read concern: committed, and not older than an OpTime."""
    return {"level": "majority", "afterClusterTime": read_at.timestamp()}


@asynccontextmanager
async def raw_batches(node: Node, find: Find) -> AsyncIterator[AsyncIterator[CursorReply]]:
    """Open a cursor; inside, iterate over its batches (the first may be empty).

    Raises `CollectionGone`, `SnapshotLost`, `NodeUnavailable`, `PermissionDenied`.
    """
    async with session_of(node) as session, aclosing(_batches(node, find, session)) as batches:
        yield batches


@asynccontextmanager
async def session_of(node: Node) -> AsyncIterator[Any]:
    """A server session for reading on this node. Raises `NodeUnavailable`."""
    with translated(f"opening a session on {node.host}"):
        session = await node.sessions.take(node.direct)
    async with node.sessions.left(session):
        yield session


async def _batches(node: Node, find: Find, session: Any) -> AsyncGenerator[CursorReply]:
    cursor = _cursor(
        node, find.database, find.command(), find.label, session, more_size=find.more_size
    )
    async with aclosing(cursor) as replies:
        async for reply in replies:
            yield reply
            del reply


async def raw_cursor(
    node: Node, database: str, command: Document, label: str
) -> AsyncGenerator[CursorReply]:
    """The batches of any `find` command; close the generator (`aclosing`) to free the cursor."""
    async with (
        session_of(node) as session,
        aclosing(_cursor(node, database, command, label, session)) as replies,
    ):
        async for reply in replies:
            yield reply
            del reply


async def _cursor(
    node: Node,
    database: str,
    command: Document,
    label: str,
    session: Any,
    *,
    more_size: int | None = None,
) -> AsyncGenerator[CursorReply]:
    reply = await _run(node, database, command, label, session)
    cursor_id, collection = reply.cursor_id, reply.ns.partition(".")[2]
    try:
        yield reply
        while cursor_id:
            del reply
            more: Document = {"getMore": cursor_id, "collection": collection}
            if "batchSize" in command:
                more["batchSize"] = more_size or command["batchSize"]
            reply = await _run(node, database, more, label, session)
            cursor_id = reply.cursor_id
            yield reply
    finally:
        if cursor_id:
            await _kill(node, database, collection, cursor_id, session)


async def _run(
    node: Node, database: str, command: Document, label: str, session: Any
) -> CursorReply:
    with _reading(label):
        try:
            async with asyncio.timeout(BATCH_TIMEOUT_S):
                reply = await node.command(
                    database, command, timeout_s=None, session=session, codec_options=RAW
                )
        except TimeoutError:
            raise NodeUnavailable(
                f"reading {label}: {node.host} sent no batch for {BATCH_TIMEOUT_S:.0f} s"
            ) from None
    return cut_cursor_reply(reply.raw)


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """`translated`, and the codes that say that the collection changed under the reader."""
    try:
        with translated(f"reading {label}"):
            yield
    except CommandFailed as error:
        raise _sharpened(error) from error.__cause__
    except PermissionDenied as error:
        # A rename between opening a cursor and naming it in the reply: the server takes the next
        # batch for somebody else's cursor and says so with the code of missing privileges.
        if _OTHER_NAMESPACE in error.message:
            raise SnapshotLost(error.message, code=QUERY_PLAN_KILLED) from error.__cause__
        raise


def _sharpened(error: CommandFailed) -> CommandFailed:
    text = error.message
    if error.code in (SNAPSHOT_UNAVAILABLE, SNAPSHOT_TOO_OLD, CAPPED_POSITION_LOST):
        return SnapshotLost(text, code=error.code)
    if error.code == NAMESPACE_NOT_FOUND:
        return CollectionGone(text, code=error.code)
    if error.code == QUERY_PLAN_KILLED:
        # "index '_id_' dropped" is said of a drop and of `emptycapped` alike: reading again by
        # UUID tells them apart.
        gone = "collection dropped" in text
        return (CollectionGone if gone else SnapshotLost)(text, code=error.code)
    return error


async def _kill(node: Node, database: str, collection: str, cursor_id: int, session: Any) -> None:
    """Free the server's cursor of a reader that stops early. Best effort: a failure here must not
    hide why reading stopped, and the end of the session lets the server forget it."""
    command = {"killCursors": collection, "cursors": [cursor_id]}
    try:
        async with asyncio.timeout(2):
            with translated("closing a cursor"):
                await node.command(database, command, session=session)
    except (TimeoutError, NodeUnavailable, CommandFailed, PermissionDenied):
        await session.end_session()


def bounds(minimum: bytes | None, maximum: bytes | None, *, is_clustered: bool) -> Document:
    """Find options for `[minimum, maximum)` of `_id`, the bounds as BSON documents `{_id: …}`.

    Index bounds (`min`, `max`) cross types where a filter would stay within one. An open upper end
    of an ordinary index leaves the document `{_id: MaxKey}` out, so the last range is an `$expr`,
    which crosses types too (on a clustered collection it would scan everything, and there the open
    end is complete). Measured on 6.0.
    """
    hint = {"hint": {"_id": 1}}
    if minimum is None and maximum is None:
        return {}
    if maximum is None and minimum is not None and not is_clustered:
        return {"filter": {"$expr": {"$gte": ["$_id", _literal(minimum)]}}, **hint}
    options: Document = {**hint}
    if minimum is not None:
        options["min"] = RawBSONDocument(minimum, RAW)
    if maximum is not None:
        options["max"] = RawBSONDocument(maximum, RAW)
    return options


def _literal(bound: bytes) -> RawBSONDocument:
    """`{$literal: bound}`, the value as it is: Python cannot hold each (a far date, a symbol)."""
    element = next(elements(bound))
    content = bytes([element.kind]) + b"$literal\0" + bound[element.start : element.end] + b"\0"
    return RawBSONDocument(_LENGTH.pack(len(content) + 4) + content, RAW)
