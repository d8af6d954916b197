"""The agents that live: one document each, renewed by heartbeats in the server's time."""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, translated
from agent.wire.collections import AGENTS
from agent.wire.nodes import NodeStatus

_AGE: Final = {"$divide": [{"$subtract": ["$$NOW", "$heartbeat_at"]}, 1000]}
_SERVER_SIDE: Final = frozenset({"_id", "heartbeat_at", "started_at", "age_s"})


class NodeRegistry:
    """What agents say of themselves and their nodes."""

    def __init__(self, control: Control, commands: CommandQueue | None = None) -> None:
        self._collection = control.collection(AGENTS)
        self._commands = commands or CommandQueue(control)

    async def heartbeat(self, status: NodeStatus) -> None:
        """Say what the node is now. The server sets the times; `started_at` when `pid` changes."""
        fields = {k: v for k, v in status.to_document().items() if k not in _SERVER_SIDE}
        kept = {"$and": [{"$eq": ["$pid", status.pid]}, {"$gt": ["$started_at", None]}]}
        times: dict[str, Any] = {
            "heartbeat_at": "$$NOW",
            "started_at": {"$cond": [kept, "$started_at", "$$NOW"]},
        }
        # Replaced as a whole, so that what is no longer said (an error) is gone.
        whole = {"$mergeObjects": [{"_id": "$_id"}, {"$literal": fields}, times]}
        with translated("writing the heartbeat"):
            try:
                await self._put(status.id, whole)
            except DuplicateKeyError:  # two upserts at once
                await self._put(status.id, whole)

    async def _put(self, node: str, whole: dict[str, Any]) -> None:
        await self._collection.update_one({"_id": node}, [{"$replaceWith": whole}], upsert=True)

    async def say_goodbye(self, node: str) -> None:
        """This agent stops: nobody need wait until its heartbeat is stale. Wakes the others, and
        what in this process still waits for a command."""
        with translated("leaving the registry"):
            await self._collection.delete_one({"_id": node})
        await self._commands.wake()

    async def all(self) -> list[NodeStatus]:
        """Every agent that has not said goodbye, live or not, by id."""
        with translated("reading the registry"):
            rows = self._collection.aggregate([{"$set": {"age_s": _AGE}}, {"$sort": {"_id": 1}}])
            return [NodeStatus.from_document(row) for row in await rows.to_list(None)]

    async def live(self) -> list[NodeStatus]:
        """The agents whose last heartbeat is recent enough."""
        return [status for status in await self.all() if status.is_live]
