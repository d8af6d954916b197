"""Reading operations, and the one way to change one."""

from __future__ import annotations

from typing import Any, Final

import structlog
from pydantic import ValidationError
from pymongo import ReturnDocument

from agent.errors import NotFound, StoreUnavailable
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, translated
from agent.store.operation_updates import UNFINISHED, Document, Pipeline
from agent.wire.collections import OPERATIONS
from agent.wire.operations import Kind, Operation

BY_AGE: Final = [("requested_at", 1), ("_id", 1)]

log = structlog.stdlib.get_logger()


class OperationReading:
    """The operations as they are."""

    def __init__(self, control: Control, commands: CommandQueue | None = None) -> None:
        self._collection = control.collection(OPERATIONS)
        self._commands = commands or CommandQueue(control)

    async def get(self, op_id: str) -> Operation:
        """One operation. Raises `NotFound`."""
        with translated("reading the operation"):
            found: Document | None = await self._collection.find_one({"_id": op_id})
        if found is None:
            raise NotFound(f"there is no operation {op_id}")
        return Operation.from_document(found)

    async def find(self, name: str, kind: Kind) -> Operation | None:
        """The operation of a kind that has this name."""
        with translated("reading the operation"):
            found = await self._collection.find_one({"name": name, "kind": kind.value})
        return None if found is None else Operation.from_document(found)

    async def active(self) -> list[Operation]:
        """Everything that is not over, queued ones too, the oldest first."""
        with translated("reading the operations"):
            cursor = self._collection.find({"state": {"$in": UNFINISHED}}).sort(BY_AGE)
            return _decoded(await cursor.to_list(None))

    async def recent(self, limit: int = 100) -> list[Operation]:
        """The latest requests, the newest first."""
        with translated("reading the operations"):
            cursor = self._collection.find().sort("requested_at", -1).limit(limit)
            return _decoded(await cursor.to_list(None))

    async def _update(
        self, match: Document, pipeline: Pipeline, *, wake: bool = True, **options: Any
    ) -> Operation | None:
        """One compare-and-set; `None` when nothing matched. To be called inside `translated`."""
        found: Document | None = await self._collection.find_one_and_update(
            match, pipeline, return_document=ReturnDocument.AFTER, **options
        )
        if found is None:
            return None
        await self._wake(found["_id"], if_asked=wake)
        return Operation.from_document(found)

    async def _wake(self, op_id: str, *, if_asked: bool = True) -> None:
        """Tell the agents of a change. Who finds that it is done already, since only the answer was
        lost, tells them, too: nobody else has."""
        if if_asked:
            await self._commands.wake(op_id)

    async def _check_confirmed(self, op_id: str, match: Document, action: str) -> None:
        """After a change that matched nothing. What a majority has may match all the same: then a
        write that no majority has confirmed stands in the way, and may yet be rolled back. Raises
        `StoreUnavailable`: the change is to be made again when that is decided."""
        with translated("reading the operation"):
            found = await self._collection.find_one({"_id": op_id, **match}, {"_id": 1})
        if found is not None:
            raise StoreUnavailable(f"{action}: an earlier change is not confirmed yet")


def _decoded(rows: list[Document]) -> list[Operation]:
    """What this version understands; a newer one may have written other kinds."""
    found = []
    for row in rows:
        try:
            found.append(Operation.from_document(row))
        except ValidationError:
            log.warning("operation.unknown", op_id=row["_id"], kind=str(row.get("kind")))
    return found
