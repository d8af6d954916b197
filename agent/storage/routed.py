"""One repository, some of whose objects are read from another one.

A restore to a time takes the backup from wherever it lies and the oplog slices from `main`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager

from agent.storage.base import ObjectInfo, Storage
from agent.storage.wrapping import WrappingStorage


class Routed(WrappingStorage):
    """Reads some keys from another storage; everything else is the first one's. See
    `agent.storage.base.Storage`. Closes neither."""

    def __init__(self, inner: Storage, other: Storage, keys: Iterable[str]) -> None:
        super().__init__(inner)
        self._other = other
        self._keys = frozenset(keys)

    def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """From where the key lies."""
        return self.home_of(key).get(key, offset=offset, length=length)

    async def stat(self, key: str) -> ObjectInfo:
        """Where the key lies."""
        return await self.home_of(key).stat(key)

    async def aclose(self) -> None:
        """Nothing: whoever opened them closes them."""

    def home_of(self, key: str | None) -> Storage:
        """Where a key lies; what is no object's is the first one's."""
        return self._other if key in self._keys else self._inner
