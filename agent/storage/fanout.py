"""Several storages written to as one: the same objects under the same keys, on each of them.

What is read once is stored everywhere at once. Memory is that of one storage: all uploads send the
same blocks. A storage that fails for good (its own retries are behind it) is left out from then on
while another still works, and `on_loss` hears of it before anything else is written, so that the
loss is durable before something counts on the others alone. The last storage is never left out: its
error is raised, as if it were the only one.

Reading asks the first storage that is not left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager

from agent.errors import ObjectExists, TidelogError
from agent.storage.base import Capabilities, ObjectInfo, Storage, get_bytes, put_bytes
from agent.storage.sources import replayed
from agent.tasks import TaskGroup

OnLoss = Callable[[str, TidelogError], Awaitable[None]]


class FanOut:
    """See `agent.storage.base.Storage`. Closes the storages it was given."""

    def __init__(self, storages: Mapping[str, Storage], on_loss: OnLoss) -> None:
        """`storages` by name, in the order in which they are read."""
        self._storages = dict(storages)
        self._all = list(storages.values())
        self._on_loss = on_loss
        self._losing = asyncio.Lock()

    @property
    def names(self) -> list[str]:
        """Those that are not left out."""
        return list(self._storages)

    @property
    def capabilities(self) -> Capabilities:
        """What all of them can do."""
        each = [storage.capabilities for storage in self._storages.values()]
        return Capabilities(
            conditional_put=all(one.conditional_put for one in each),
            strong_list=all(one.strong_list for one in each),
            max_object_bytes=min(one.max_object_bytes for one in each),
            max_concurrency=min(one.max_concurrency for one in each),
            retries_put=True,
        )

    @property
    def address(self) -> str:
        """All addresses."""
        return ", ".join(storage.address for storage in self._storages.values())

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Store it everywhere, at once."""
        blocks = [block async for block in source]
        sizes: dict[str, ObjectInfo] = {}

        async def store(name: str, storage: Storage) -> TidelogError | None:
            try:
                sizes[name] = await storage.put(key, replayed(blocks), size_hint=size_hint)
            except TidelogError as error:
                return error
            return None

        await self._everywhere(store)
        found = {info.size_bytes for info in sizes.values()}
        return ObjectInfo(key, min(found))

    def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """From the first."""
        return self._first().get(key, offset=offset, length=length)

    async def stat(self, key: str) -> ObjectInfo:
        """At the first."""
        return await self._first().stat(key)

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """What the first has."""
        return self._first().list(prefix, after=after)

    async def delete(self, keys: Iterable[str]) -> None:
        """Everywhere."""
        chosen = list(keys)

        async def remove(name: str, storage: Storage) -> TidelogError | None:
            try:
                await storage.delete(chosen)
            except TidelogError as error:
                return error
            return None

        await self._everywhere(remove)

    async def level(self, prefix: str) -> None:
        """Copy what only some of them have below a prefix to the others: small objects that a
        worker which died was just writing."""
        held: dict[str, dict[str, Storage]] = {}

        async def look(name: str, storage: Storage) -> TidelogError | None:
            try:
                async for item in storage.list(prefix):
                    held.setdefault(item.key, {})[name] = storage
            except TidelogError as error:
                return error
            return None

        await self._everywhere(look)
        for key, holders in sorted(held.items()):
            data: bytes | None = None
            for name, storage in list(self._storages.items()):
                if name in holders:
                    continue
                if data is None:
                    data = await get_bytes(next(iter(holders.values())), key)
                try:
                    await put_bytes(storage, key, data)
                except TidelogError as error:
                    await self._lose({name: error}, len(self._storages) + 1)

    async def verify(self) -> None:
        """Everywhere."""
        for storage in self._storages.values():
            await storage.verify()

    async def aclose(self) -> None:
        """Close all, those that were left out as well."""
        for storage in self._all:
            await storage.aclose()

    def _first(self) -> Storage:
        return next(iter(self._storages.values()))

    async def _everywhere(
        self, act: Callable[[str, Storage], Awaitable[TidelogError | None]]
    ) -> None:
        """Do it at each at once; those that fail are left out unless all do. Each ends on its own:
        one that fails early does not cut the others short."""
        errors: dict[str, TidelogError] = {}

        async def one(name: str, storage: Storage) -> None:
            error = await act(name, storage)
            if error is not None:
                errors[name] = error

        chosen = list(self._storages.items())
        async with TaskGroup() as group:
            for name, storage in chosen:
                group.create_task(one(name, storage))
        if errors:
            await self._lose(errors, len(chosen))

    async def _lose(self, errors: Mapping[str, TidelogError], asked: int) -> None:
        taken = next((e for e in errors.values() if isinstance(e, ObjectExists)), None)
        if taken is not None:
            raise taken  # no fault of the storage
        async with self._losing:
            if len(errors) == asked or not set(self._storages) - set(errors):
                raise next(iter(errors.values()))
            for name, error in errors.items():
                if self._storages.pop(name, None) is not None:
                    await self._on_loss(name, error)
