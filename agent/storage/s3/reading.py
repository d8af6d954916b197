"""The S3 side of `agent.storage.ranges`: GetObject with a range."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from agent.errors import StorageUnavailable
from agent.storage.ranges import Body
from agent.storage.s3.connection import Connection
from agent.storage.s3.errors import VENDOR_ERRORS, translated

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass
class _Answer:
    """See `agent.storage.ranges.Body`."""

    body: Any
    total_bytes: int
    what: str

    async def read(self, size_bytes: int) -> bytes:
        try:
            return bytes(await self.body.read(size_bytes))
        except (*VENDOR_ERRORS, ValueError) as error:
            raise translated(error, self.what) from error

    def close(self) -> None:
        self.body.close()


class ObjectRanges:
    """Asks for ranges of objects of one bucket; see `agent.storage.ranges.Ranges`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def cannot(self, action: str, key: str | None) -> str:
        """Names the bucket."""
        return self._connection.cannot(action, key)

    async def fetch(self, key: str, offset: int, length: int) -> Body:
        """GetObject."""
        answer = await self._connection.call(
            "get_object",
            "read",
            key,
            Key=self._connection.name(key),
            Range=f"bytes={offset}-{offset + length - 1}",
            **self._connection.encryption.customer(),
        )
        what = self.cannot("read", key)
        found = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if found is not None and int(found[1]) == offset:
            return _Answer(answer["Body"], int(found[3]), what)
        if offset == 0 and answer.get("ContentRange") is None:
            # A server without ranges
            return _Answer(answer["Body"], int(answer["ContentLength"]), what)
        answer["Body"].close()
        raise StorageUnavailable(f"{what}: the server sent another range")

    async def size_bytes(self, key: str) -> int:
        """HeadObject."""
        answer = await self._connection.call(
            "head_object",
            "read",
            key,
            Key=self._connection.name(key),
            **self._connection.encryption.customer(),
        )
        return int(answer["ContentLength"])
