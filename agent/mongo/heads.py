"""The beginnings of many collections, read in one trip to the driver's threads.

Of a collection of a few documents, the trip there and back costs more than its `find`. So many
are asked for one after the other in one thread, through the driver's own blocking client. Only what
is whole comes back: whatever was not read, went wrong or goes on is the caller's to read by itself,
where what failed is told for what it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from pymongo.errors import ConnectionFailure, PyMongoError

from agent.clock import SystemClock
from agent.errors import NodeUnavailable
from agent.mongo.cursor import BATCH_TIMEOUT_S, RAW, Find, session_of
from agent.mongo.node import Node
from agent.mongo.raw import CursorReply, cut_cursor_reply

HEAD_DOCUMENTS: Final = 256
"""A collection of more documents is not read here."""
TRIP_S: Final = 5.0
"""No further collection is asked for after so long: on a slow node, dozens take minutes."""
_CLOCK: Final = SystemClock()
_pool: Final = ThreadPoolExecutor(max_workers=8, thread_name_prefix="heads")
"""Of its own: the loop would wait for its default one when the agent stops."""


async def read_whole_heads(
    node: Node, finds: Sequence[Find], *, most_bytes: int
) -> list[CursorReply | None]:
    """All documents of each collection, in the order of `finds`; None where there are more than
    `HEAD_DOCUMENTS`, where the server refused, and for those after `most_bytes` had come (the reply
    that exceeds it is the last one, and holds up to 16 MiB) or `TRIP_S` had passed. Raises
    `NodeUnavailable`."""
    stop = threading.Event()
    async with session_of(node) as session:
        try:
            async with asyncio.timeout(TRIP_S + BATCH_TIMEOUT_S):
                replies = await asyncio.get_running_loop().run_in_executor(
                    _pool, _read, node.direct.delegate, session.delegate, finds, most_bytes, stop
                )
        except TimeoutError:
            raise NodeUnavailable(
                f"reading one of {len(finds)} collections from {finds[0].label} on:"
                f" {node.host} sent nothing for {BATCH_TIMEOUT_S:.0f} s"
            ) from None
        finally:
            # A thread cannot be cancelled: it asks for no further collection.
            stop.set()
    return [*replies, *[None] * (len(finds) - len(replies))]


def _read(
    client: Any, session: Any, finds: Sequence[Find], most_bytes: int, stop: threading.Event
) -> list[CursorReply | None]:
    replies: list[CursorReply | None] = []
    left_bytes, ends_at = most_bytes, _CLOCK.monotonic() + TRIP_S
    for find in finds:
        if left_bytes <= 0 or stop.is_set() or _CLOCK.monotonic() > ends_at:
            break
        try:
            reply = _head(client, session, find)
        except ConnectionFailure:
            break
        except PyMongoError:
            reply = None
        replies.append(reply)
        left_bytes -= len(reply.documents) if reply else 0
    return replies


def _head(client: Any, session: Any, find: Find) -> CursorReply | None:
    """One more document is asked for than may be there: with a limit the server closes the cursor
    by itself, unless the documents are too large for one reply."""
    limited = replace(find, options={**find.options, "limit": HEAD_DOCUMENTS + 1})
    database = client[find.database]
    answer = database.command(limited.command(), session=session, codec_options=RAW)
    reply = cut_cursor_reply(answer.raw)
    if reply.cursor_id:
        collection = reply.ns.partition(".")[2]
        kill = {"killCursors": collection, "cursors": [reply.cursor_id]}
        database.command(kill, session=session)
        return None
    return reply if reply.count <= HEAD_DOCUMENTS else None
