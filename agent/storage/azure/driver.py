"""Objects in a container of Azure Blob Storage, or of a server that speaks its protocol.

Every request is tried again by itself, blocks of an upload included, and the wrappers leave `put`
to this driver. Nothing is sent that asks for more than the permissions in docs/storage/azure.md.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from azure.storage.blob.aio import ContainerClient

from agent.errors import ConfigError, ObjectNotFound, Permanent
from agent.storage.azure.connection import MAX_CONNECTIONS, Connection
from agent.storage.azure.errors import judged
from agent.storage.azure.listing import AzurePages
from agent.storage.azure.reading import AzureRanges
from agent.storage.azure.writing import BlobUpload
from agent.storage.base import Capabilities, ObjectInfo, Storage
from agent.storage.keys import check_key, check_prefix
from agent.storage.multipart import Plan, upload
from agent.storage.ordered import OrderedListing
from agent.storage.precedence import Choice
from agent.storage.probe import probe
from agent.storage.ranges import Range, Reader
from agent.storage.surroundings import Surroundings
from agent.storage.threads import Threads
from agent.wire.storage_azure import AzureSettings
from agent.wire.storage_settings import StorageSettings

DELETE_BATCH: Final = 256
MAX_BLOCKS: Final = 50_000
HASHING_THREADS: Final = 2


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls, for `azure`."""
    around = surroundings or Surroundings()
    if settings.azure is None:
        raise ConfigError("the settings have no section storage.azure")
    return await AzureStorage.open(settings.azure.at_node(around.node), around)


class AzureStorage:
    """See `agent.storage.base.Storage`. Create it with `AzureStorage.open`."""

    def __init__(self, connection: Connection, threads: Threads) -> None:
        settings = connection.settings
        self._connection = connection
        self._threads = threads
        self._listing = OrderedListing(AzurePages(connection).below, connection.address)
        self._ranges = AzureRanges(connection)
        self._reader = Reader(self._ranges, settings.upload_part_size, settings.upload_concurrency)
        self._plan = Plan(settings.upload_part_size, MAX_BLOCKS, settings.upload_concurrency)
        self._has_batches = True

    @classmethod
    async def open(
        cls, settings: AzureSettings, surroundings: Surroundings | None = None
    ) -> AzureStorage:
        """Prepare a client of one container; nothing is sent yet. Raises `ConfigError`."""
        connection = await Connection.open(settings, surroundings or Surroundings())
        return cls(connection, Threads(HASHING_THREADS, "tidelog-azure"))

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        return Capabilities(
            conditional_put=True,
            strong_list=True,
            max_object_bytes=self._plan.max_object_bytes,
            max_concurrency=MAX_CONNECTIONS,
            retries_put=True,
        )

    @property
    def address(self) -> str:
        """`azure://account/container/prefix`."""
        return self._connection.address

    @property
    def credentials(self) -> Choice:
        """Which link of the credential chain is used."""
        return self._connection.choice

    @property
    def credentials_left_s(self) -> float | None:
        """For how many seconds a SAS token is good, once the server has answered."""
        return self._connection.sas_left_s

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """One request where it fits in one part, blocks in parallel elsewhere."""
        check_key(key)
        target = BlobUpload(self._connection, self._threads, key)
        size_bytes = await upload(
            source,
            target,
            self._plan.for_size(size_hint),
            lambda: self._connection.attempts("put", key),
        )
        return ObjectInfo(key, size_bytes)

    @asynccontextmanager
    async def get(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """One request, or several ranges at once for what is long."""
        async with self._reader.open(Range(check_key(key), offset, length)) as stream:
            yield stream

    async def stat(self, key: str) -> ObjectInfo:
        """Get Blob Properties."""
        return ObjectInfo(key, await self._ranges.size_bytes(check_key(key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Page by page, as far as the caller draws."""
        async for found in self._listing.keys(check_prefix(prefix), after):
            yield found

    async def delete(self, keys: Iterable[str]) -> None:
        """256 a request; with soft delete or versioning they can be brought back."""
        remaining = iter(keys)
        while batch := [check_key(key) for key in islice(remaining, DELETE_BATCH)]:
            if self._has_batches and len(batch) > 1:
                try:
                    await self._delete_batch(batch)
                    continue
                except Permanent:
                    self._has_batches = False  # a token for one container may not ask for batches
            for key in batch:
                await self._delete_one(key)

    async def verify(self) -> None:
        """Write, list, read back and delete a probe object."""
        await probe(self)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()
        await self._threads.aclose()

    async def _delete_one(self, key: str) -> None:
        name = self._connection.name(key)
        try:
            await self._connection.call(
                "delete", key, lambda container: container.delete_blob(name)
            )
        except ObjectNotFound:
            return

    async def _delete_batch(self, batch: builtins.list[str]) -> None:
        async def ask(container: ContainerClient) -> None:
            names = [self._connection.name(key) for key in batch]
            answers = await container.delete_blobs(*names, raise_on_any_failure=False)
            number = 0
            async for answer in answers:
                key = batch[min(number, len(batch) - 1)]
                number += 1
                if answer.status_code >= 300 and answer.status_code != 404:
                    headers = {name.lower(): text for name, text in answer.headers.items()}
                    code = headers.get("x-ms-error-code", "")
                    what = self._connection.cannot("delete", key)
                    raise judged(answer.status_code, code, what, headers)

        await self._connection.call("delete", batch[0], ask)
