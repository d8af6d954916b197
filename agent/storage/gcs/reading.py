"""How a range of an object in GCS is asked for: its side of `agent.storage.ranges`."""

from __future__ import annotations

import re
from typing import Any, Final

from agent.errors import StorageUnavailable
from agent.storage.gcs.connection import Connection
from agent.storage.gcs.errors import VENDOR_ERRORS, translated
from agent.storage.ranges import Body

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class GcsRanges:
    """Ranges of objects of one bucket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, key: str, offset: int, length: int) -> Body:
        """The object's bytes, with a range."""
        answer = await self._connection.begin(
            ("read", key),
            "GET",
            self._connection.objects(key),
            parameters={"alt": "media"},
            headers={
                "Range": f"bytes={offset}-{offset + length - 1}",
                "Accept-Encoding": "identity",
            },
        )
        what = self.cannot("read", key)
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if found is not None and int(found[1]) == offset:
            return _GcsBody(answer, int(found[3]), what)
        if offset == 0 and found is None and answer.content_length is not None:
            return _GcsBody(answer, answer.content_length, what)  # a server without ranges
        answer.close()
        raise StorageUnavailable(f"{what}: the server sent another range")

    async def size_bytes(self, key: str) -> int:
        """Of the object's resource."""
        found = await self._connection.call(
            ("read", key), "GET", self._connection.objects(key), parameters={"fields": "size"}
        )
        return int(found["size"])

    def cannot(self, action: str, key: str | None) -> str:
        """As the connection says it."""
        return self._connection.cannot(action, key)


class _GcsBody:
    """The stream of one answer."""

    def __init__(self, answer: Any, total_bytes: int, what: str) -> None:
        self._answer = answer
        self.total_bytes = total_bytes
        self._what = what

    async def read(self, size_bytes: int) -> bytes:
        try:
            return bytes(await self._answer.content.read(size_bytes))
        except VENDOR_ERRORS as error:
            raise translated(error, self._what) from error

    def close(self) -> None:
        if self._answer.content.at_eof():
            self._answer.release()
        else:
            self._answer.close()
