"""A storage around another one: what every decorator of storages begins with.

All seven verbs are passed on as they are, and closing it closes what is inside. A decorator derives
from it and writes out only the verbs that it changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager

from agent.storage.base import Capabilities, ObjectInfo, Storage


class WrappingStorage:
    """See `agent.storage.base.Storage`."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner

    @property
    def capabilities(self) -> Capabilities:
        """Those of the storage inside."""
        return self._inner.capabilities

    @property
    def address(self) -> str:
        """That of the storage inside."""
        return self._inner.address

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """See `Storage`."""
        return await self._inner.put(key, source, size_hint=size_hint)

    def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `Storage`."""
        return self._inner.get(key, offset=offset, length=length)

    async def stat(self, key: str) -> ObjectInfo:
        """See `Storage`."""
        return await self._inner.stat(key)

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """See `Storage`."""
        return self._inner.list(prefix, after=after)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage`."""
        await self._inner.delete(keys)

    async def verify(self) -> None:
        """See `Storage`."""
        await self._inner.verify()

    async def aclose(self) -> None:
        """Closes the storage inside, too."""
        await self._inner.aclose()
