"""The OSS side of `agent.storage.ranges`: GetObject with a range."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any, Final

from agent.errors import StorageUnavailable
from agent.storage.oss.connection import Connection
from agent.storage.oss.errors import VENDOR_ERRORS, translated
from agent.storage.ranges import BLOCK_BYTES, Body

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _Answer:
    """See `agent.storage.ranges.Body`."""

    def __init__(self, response: Any, total_bytes: int, what: str) -> None:
        self.total_bytes = total_bytes
        self._response = response
        self._blocks: AsyncGenerator[bytes, None] = response.iter_bytes(block_size=BLOCK_BYTES)
        self._what = what
        self._rest = b""

    async def read(self, size_bytes: int) -> bytes:
        if not self._rest:
            try:
                # The library yields None where a connection broke in a way it does not know.
                self._rest = await anext(self._blocks, b"") or b""
            except (*VENDOR_ERRORS, ValueError) as error:
                raise translated(error, self._what) from error
        block, self._rest = self._rest[:size_bytes], self._rest[size_bytes:]
        return block

    def close(self) -> None:
        self._response._internal_response.close()  # its own `close` waits


class ObjectRanges:
    """Asks for ranges of objects of one bucket; see `agent.storage.ranges.Ranges`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def cannot(self, action: str, key: str | None) -> str:
        """Names the bucket."""
        return self._connection.cannot(action, key)

    async def fetch(self, key: str, offset: int, length: int) -> Body:
        """GetObject. Without `standard` the service answers a range that reaches behind the end
        with the whole object."""
        output = await self._connection.call(
            "GET",
            "read",
            key,
            name=self._connection.name(key),
            headers={
                "Range": f"bytes={offset}-{offset + length - 1}",
                "x-oss-range-behavior": "standard",
            },
            is_stream=True,
        )
        what = self.cannot("read", key)
        found = _CONTENT_RANGE.fullmatch(output.headers.get("Content-Range", ""))
        if found is not None and int(found[1]) == offset:
            return _Answer(output.http_response, int(found[3]), what)
        await output.http_response.close()
        raise StorageUnavailable(f"{what}: the server sent another range")

    async def size_bytes(self, key: str) -> int:
        """HeadObject."""
        output = await self._connection.call("HEAD", "read", key, name=self._connection.name(key))
        return int(output.headers["Content-Length"])
