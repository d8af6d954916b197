"""All keys below a prefix in byte order, page by page.

S3 lists in byte order. Servers that keep objects in directories do not: they put `b/a` before `b!`.
There, and wherever the first page is out of order, the keys are walked level by level, each level
sorted before it is told; that costs a request for each directory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, Final

from agent.errors import IntegrityError
from agent.storage.base import ObjectInfo
from agent.storage.s3.connection import Connection
from agent.storage.s3.manners import Manners

DISORDERLY_SERVERS: Final = ("seaweedfs",)
PAGE: Final = 1000


class Listing:
    """Lists one repository."""

    def __init__(self, connection: Connection, manners: Manners) -> None:
        self._connection = connection
        self._manners = manners

    async def keys(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        """See `agent.storage.base.Storage.list`."""
        last = after
        if self._manners.ordered:
            async for page in self._flat(prefix, after):
                if not self._is_in_order(last, page):
                    if last is not after:
                        raise IntegrityError(
                            f"{self._connection.address} lists keys out of order behind {last!r}",
                            hint="try again: from now on the keys are sorted here",
                        )
                    break
                for found in page:
                    yield found
                last = page[-1].key if page else last
            else:
                return
        async for found in self._walk(prefix, after):
            yield found

    def _is_in_order(self, last: str | None, page: list[ObjectInfo]) -> bool:
        if self._manners.ordered:
            names = [found.key.encode() for found in page]
            before = [] if last is None or not names else [last.encode()]
            self._manners.ordered = all(a < b for a, b in pairwise([*before, *names]))
        return self._manners.ordered

    async def _flat(self, prefix: str, after: str | None) -> AsyncIterator[list[ObjectInfo]]:
        more: dict[str, Any] = {} if not after else {"StartAfter": self._connection.name(after)}
        async for answer in self._pages(prefix, **more):
            yield [found for found in self._objects(answer) if after is None or found.key > after]

    async def _walk(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        level: dict[str, ObjectInfo | None] = {}
        async for answer in self._pages(prefix, Delimiter="/"):
            for found in self._objects(answer):
                level[found.key] = found
            for each in answer.get("CommonPrefixes", []):
                level[self._key(each["Prefix"])] = None
        for key in sorted(level, key=str.encode):
            entry = level[key]
            if entry is not None:
                if after is None or key > after:
                    yield entry
            elif after is None or key > after or after.startswith(key):
                async for below in self._walk(key, after):
                    yield below

    async def _pages(self, prefix: str, **more: Any) -> AsyncIterator[dict[str, Any]]:
        token: str | None = None
        name = self._connection.name(prefix)
        while True:
            paging = {} if token is None else {"ContinuationToken": token}
            answer = await self._connection.call(
                "list_objects_v2", "list", prefix, Prefix=name, MaxKeys=PAGE, **more, **paging
            )
            server = answer["ResponseMetadata"]["HTTPHeaders"].get("server", "").lower()
            if server.startswith(DISORDERLY_SERVERS):
                self._manners.ordered = False
            yield answer
            token = answer.get("NextContinuationToken")
            if not answer.get("IsTruncated") or not token:
                return

    def _objects(self, answer: dict[str, Any]) -> list[ObjectInfo]:
        return [
            ObjectInfo(self._key(found["Key"]), int(found["Size"]))
            for found in answer.get("Contents", [])
            if not found["Key"].endswith("/")  # markers that consoles make for folders
        ]

    def _key(self, name: str) -> str:
        return name.removeprefix(self._connection.name(""))
