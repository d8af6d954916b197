"""The limits of pace: one document, read with the server's time."""

from __future__ import annotations

from datetime import datetime

from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, translated
from agent.wire.collections import CONFIG
from agent.wire.limits import Limits

LIMITS_ID = "limits"


class LimitsStore:
    """Read and replace."""

    def __init__(self, control: Control, commands: CommandQueue | None = None) -> None:
        self._control = control
        self._collection = control.collection(CONFIG)
        self._commands = commands or CommandQueue(control)

    async def read(self) -> tuple[Limits, datetime]:
        """The limits, none where none was ever set, and the server's time."""
        with translated("reading the limits"):
            document = await self._collection.find_one({"_id": LIMITS_ID})
        limits = Limits() if document is None else Limits.from_document(document["limits"])
        return limits, (await self._control.now()).wall()

    async def save(self, limits: Limits) -> None:
        """Put these in place of those before, and tell the agents."""
        with translated("writing the limits"):
            await self._collection.update_one(
                {"_id": LIMITS_ID},
                [{"$set": {"limits": {"$literal": limits.to_json()}, "updated_at": "$$NOW"}}],
                upsert=True,
            )
        await self._commands.wake()
