"""The routing tables of the cluster, as its config servers have them now.

Reads go to the primary of the lead replica set, at read concern majority.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from bson import Binary

from agent.store.connection import Control, translated

Document = dict[str, Any]


class RoutingTables:
    """`config.databases`, `config.collections` and `config.chunks` of the lead replica set."""

    def __init__(self, control: Control) -> None:
        self._config = control.client.get_database(
            "config",
            codec_options=control.database.codec_options,
            read_concern=control.database.read_concern,
        )

    async def primaries(self) -> dict[str, str]:
        """The primary shard of each database."""
        with translated("reading the databases of the cluster"):
            rows = await self._config["databases"].find({}, {"primary": 1}).to_list(None)
        return {row["_id"]: row["primary"] for row in rows}

    async def database_stamps(self) -> dict[str, Any]:
        """The timestamp of each database's version; None where the server stamps none."""
        with translated("reading the versions of the cluster's databases"):
            rows = await self._config["databases"].find({}, {"version": 1}).to_list(None)
        return {row["_id"]: row.get("version", {}).get("timestamp") for row in rows}

    async def collections(self) -> list[Document]:
        """The documents of all sharded collections."""
        with translated("reading the sharded collections"):
            found: list[Document] = await self._config["collections"].find({}).to_list(None)
        return found

    async def chunks(self, uuid: bytes) -> AsyncIterator[Document]:
        """The ranges of one collection in their order: `min`, `max` and `shard`."""
        wanted = {"min": 1, "max": 1, "shard": 1}
        with translated("reading the ranges of a sharded collection"):
            cursor = self._config["chunks"].find({"uuid": Binary(uuid, 4)}, wanted)
            async for row in cursor.sort("min", 1):
                yield row
