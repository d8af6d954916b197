"""Objects in a bucket of Google Cloud Storage, or of a server that speaks its JSON API.

Every request is tried again by itself, chunks of an upload included, and the wrappers leave `put`
to this driver. Nothing is sent that asks for more than the permissions in docs/storage/gcs.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from agent.errors import ConfigError, ObjectNotFound
from agent.storage.base import Capabilities, ObjectInfo, Storage
from agent.storage.gcs.connection import MAX_CONNECTIONS, Connection
from agent.storage.gcs.deleting import BATCH, delete_batch
from agent.storage.gcs.errors import Unsupported
from agent.storage.gcs.listing import GcsPages
from agent.storage.gcs.reading import GcsRanges
from agent.storage.gcs.writing import CHUNK_UNIT, ObjectUpload
from agent.storage.keys import check_key, check_prefix
from agent.storage.multipart import Plan, upload
from agent.storage.ordered import OrderedListing
from agent.storage.precedence import Choice
from agent.storage.probe import probe
from agent.storage.ranges import Range, Reader
from agent.storage.surroundings import Surroundings
from agent.storage.threads import Threads
from agent.wire.storage_gcs import GcsSettings
from agent.wire.storage_settings import StorageSettings

MAX_OBJECT_BYTES: Final = 5 << 40
HASHING_THREADS: Final = 2


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls, for `gcs`."""
    around = surroundings or Surroundings()
    if settings.gcs is None:
        raise ConfigError("the settings have no section storage.gcs")
    return await GcsStorage.open(settings.gcs.at_node(around.node), around)


class GcsStorage:
    """See `agent.storage.base.Storage`. Create it with `GcsStorage.open`."""

    def __init__(self, connection: Connection, threads: Threads) -> None:
        settings = connection.settings
        self._connection = connection
        self._threads = threads
        self._listing = OrderedListing(GcsPages(connection).below, connection.address)
        self._ranges = GcsRanges(connection)
        self._reader = Reader(self._ranges, settings.upload_part_size, settings.upload_concurrency)
        chunk_bytes = -(-settings.upload_part_size // CHUNK_UNIT) * CHUNK_UNIT
        # One at a time: the chunks of a session follow each other.
        self._plan = Plan(chunk_bytes, MAX_OBJECT_BYTES // chunk_bytes, 1)
        self._has_batches = True

    @classmethod
    async def open(
        cls, settings: GcsSettings, surroundings: Surroundings | None = None
    ) -> GcsStorage:
        """Prepare a client of one bucket; nothing is sent yet. Raises `ConfigError`."""
        connection = await Connection.open(settings, surroundings or Surroundings())
        return cls(connection, Threads(HASHING_THREADS, "tidelog-gcs"))

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do."""
        return Capabilities(
            conditional_put=True,
            strong_list=True,
            max_object_bytes=MAX_OBJECT_BYTES,
            max_concurrency=MAX_CONNECTIONS,
            retries_put=True,
        )

    @property
    def address(self) -> str:
        """`gs://bucket/prefix`."""
        return self._connection.address

    @property
    def credentials(self) -> Choice:
        """Which link of the credential chain is used."""
        return self._connection.choice

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """One request where it fits in one part, a resumable session elsewhere."""
        check_key(key)
        target = ObjectUpload(self._connection, self._threads, key)
        size_bytes = await upload(
            source,
            target,
            self._plan,
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
        """The object's resource."""
        return ObjectInfo(key, await self._ranges.size_bytes(check_key(key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Page by page, as far as the caller draws."""
        async for found in self._listing.keys(check_prefix(prefix), after):
            yield found

    async def delete(self, keys: Iterable[str]) -> None:
        """A hundred a request; with soft delete or versioning they can be brought back."""
        remaining = iter(keys)
        while batch := [check_key(key) for key in islice(remaining, BATCH)]:
            if self._has_batches and len(batch) > 1:
                try:
                    await delete_batch(self._connection, batch)
                    continue
                except (Unsupported, ObjectNotFound):
                    self._has_batches = False  # not every implementation has them
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
        path = self._connection.objects(key)
        try:
            await self._connection.call(("delete", key), "DELETE", path)
        except ObjectNotFound:
            return
