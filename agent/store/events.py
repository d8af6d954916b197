"""The structured log of all agents: one capped collection, in the order of the server.

Best effort: what cannot be written is dropped by the writer (it is in the agent's own log too).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Final

from bson import ObjectId
from pymongo import CursorType, UpdateOne
from pymongo.errors import PyMongoError

from agent.clock import Clock, SystemClock
from agent.errors import StoreUnavailable
from agent.store.connection import Control, translated
from agent.wire.collections import EVENTS
from agent.wire.events import Event, EventFilter

AWAIT_S: Final = 1.0
RECONNECT_S: Final = 1.0

Document = dict[str, Any]


class EventLog:
    """Write, look back, follow."""

    def __init__(self, control: Control, clock: Clock | None = None) -> None:
        self._collection = control.loose(EVENTS)
        self._clock = clock or SystemClock()

    async def write(self, events: Sequence[Event]) -> None:
        """Append, each at the server's time less its age. Raises `StoreUnavailable`."""
        if not events:
            return
        with translated("writing events"):
            await self._collection.bulk_write([_append(event) for event in events], ordered=True)

    async def tail(self, chosen: EventFilter | None = None, limit: int = 20) -> list[Event]:
        """The last events, in order."""
        query = (chosen or EventFilter()).to_query()
        with translated("reading events"):
            cursor = self._collection.find(query).sort("$natural", -1).limit(limit)
            rows = await cursor.to_list(None)
        return [Event.from_document(row) for row in reversed(rows)]

    async def follow(self, chosen: EventFilter | None = None) -> AsyncIterator[Event]:
        """Events from now on, for ever; a lost primary is waited for."""
        last: ObjectId | None = None
        is_placed = False
        query = (chosen or EventFilter()).to_query()
        while True:
            try:
                if not is_placed:
                    # Once: of an empty log `None` stays right, and the first event is not missed.
                    last, is_placed = await self._last_id(), True
                async with contextlib.aclosing(self._tail_from(query, last)) as found:
                    async for row in found:
                        last = row["_id"]
                        yield Event.from_document(row)
            except StoreUnavailable:
                pass  # tried again below, from where it broke off
            await self._clock.sleep(RECONNECT_S)

    async def _last_id(self) -> ObjectId | None:
        with translated("reading events"):
            rows = await self._collection.find({}, {"_id": 1}).sort("$natural", -1).to_list(1)
        return rows[0]["_id"] if rows else None

    async def _tail_from(
        self, query: Document, after: ObjectId | None
    ) -> AsyncGenerator[Document, None]:
        """Rows after one, by the server's order: ids are made by agents and do not tell it."""
        with translated("following events"):
            # One that has left the capped collection meanwhile cannot be waited for.
            passed = after is None or await self._collection.find_one({"_id": after}) is None
            cursor = self._collection.find(
                {"$or": [query, {"_id": after}]}, cursor_type=CursorType.TAILABLE_AWAIT
            )
            cursor.max_await_time_ms(int(AWAIT_S * 1000))
            try:
                while cursor.delegate.alive:
                    async for row in cursor:
                        if passed:
                            yield row
                        passed = passed or row["_id"] == after
            finally:
                with contextlib.suppress(PyMongoError, TimeoutError):
                    async with asyncio.timeout(1.0):
                        await cursor.close()


def _append(event: Event) -> UpdateOne:
    fields = event.to_document()
    age_ms = int(fields.pop("age_s", 0.0) * 1000)
    fields.pop("at", None)
    whole = {
        "$mergeObjects": [
            {"_id": "$_id", "at": {"$subtract": ["$$NOW", age_ms]}},
            {"$literal": fields},
        ]
    }
    # An insert cannot use the server's time; an upsert of a new id can.
    return UpdateOne({"_id": ObjectId()}, [{"$replaceWith": whole}], upsert=True)
