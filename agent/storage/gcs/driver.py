"""Objects in a bucket of Google Cloud Storage, or of a server that speaks its JSON API.

Every request is tried again by itself, chunks of an upload included, and the wrappers leave `put`
to this driver. Nothing is sent that asks for more than the permissions in docs/storage/gcs.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from agent.errors import ConfigError, ObjectNotFound
from agent.storage.answers import Unsupported
from agent.storage.base import ObjectInfo, Storage
from agent.storage.cloud import CloudStorage
from agent.storage.describing import Description
from agent.storage.gcs.connection import Connection
from agent.storage.gcs.deleting import BATCH, delete_batch
from agent.storage.gcs.describing import describe
from agent.storage.gcs.listing import GcsPages
from agent.storage.gcs.reading import GcsRanges
from agent.storage.gcs.writing import CHUNK_UNIT, ObjectUpload
from agent.storage.multipart import Plan
from agent.storage.ordered import OrderedListing
from agent.storage.surroundings import Surroundings
from agent.wire.storage_gcs import GcsSettings
from agent.wire.storage_settings import StorageSettings

MAX_OBJECT_BYTES: Final = 5 << 40


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls, for `gcs`."""
    around = surroundings or Surroundings()
    if settings.gcs is None:
        raise ConfigError("the settings have no section storage.gcs")
    return await GcsStorage.open(settings.gcs.at_node(around.node), around)


class GcsStorage(CloudStorage[Connection]):
    """See `agent.storage.base.Storage`. Create it with `GcsStorage.open`."""

    delete_at_once = BATCH
    without_batches = (Unsupported, ObjectNotFound)  # not every implementation has them
    max_object_bytes = MAX_OBJECT_BYTES

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        chunk_bytes = -(-settings.upload_part_size // CHUNK_UNIT) * CHUNK_UNIT
        super().__init__(
            connection,
            GcsRanges(connection),
            # One at a time: the chunks of a session follow each other.
            Plan(chunk_bytes, MAX_OBJECT_BYTES // chunk_bytes, 1),
        )
        self._listing = OrderedListing(GcsPages(connection).below, connection.address)

    @classmethod
    async def open(
        cls, settings: GcsSettings, surroundings: Surroundings | None = None
    ) -> GcsStorage:
        """Prepare a client of one bucket; nothing is sent yet. Raises `ConfigError`."""
        return cls(await Connection.open(settings, surroundings or Surroundings()))

    async def _target(self, key: str) -> ObjectUpload:
        return ObjectUpload(self._connection, key)

    def _pages(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        return self._listing.keys(prefix, after)

    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""
        return await describe(self._connection, probe)

    async def _delete_one(self, key: str) -> None:
        await self._connection.call(("delete", key), "DELETE", self._connection.objects(key))

    async def _delete_batch(self, batch: list[str]) -> None:
        await delete_batch(self._connection, batch)
