"""Pages of a listing of a bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from agent.storage.base import ObjectInfo
from agent.storage.gcs.connection import Connection

PAGE: Final = 1000


class GcsPages:
    """Lists one repository, for `agent.storage.ordered`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def below(self, prefix: str, after: str | None) -> AsyncIterator[list[ObjectInfo]]:
        """Objects: list."""
        name = self._connection.name
        asked = {
            "prefix": name(prefix),
            "maxResults": str(PAGE),
            "fields": "items(name,size),nextPageToken",
        }
        if after:
            asked["startOffset"] = name(after)
        while True:
            answer = await self._connection.call(
                ("list", prefix), "GET", self._connection.objects(), parameters=asked
            )
            yield [
                ObjectInfo(found["name"].removeprefix(name("")), int(found["size"]))
                for found in answer.get("items", [])
                if not found["name"].endswith("/")  # markers that consoles make for folders
            ]
            token = answer.get("nextPageToken")
            if not token:
                return
            asked["pageToken"] = token
