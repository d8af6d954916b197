"""Objects in a container of Azure Blob Storage, or of a server that speaks its protocol.

Every request is tried again by itself, blocks of an upload included, and the wrappers leave `put`
to this driver. Nothing is sent that asks for more than the permissions in docs/storage/azure.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from azure.storage.blob.aio import ContainerClient

from agent.errors import ConfigError, Permanent
from agent.storage.azure.connection import Connection
from agent.storage.azure.describing import describe
from agent.storage.azure.errors import judged
from agent.storage.azure.listing import AzurePages
from agent.storage.azure.reading import AzureRanges
from agent.storage.azure.writing import BlobUpload
from agent.storage.base import ObjectInfo, Storage
from agent.storage.cloud import CloudStorage
from agent.storage.describing import Description
from agent.storage.multipart import Plan
from agent.storage.ordered import OrderedListing
from agent.storage.surroundings import Surroundings
from agent.wire.storage_azure import AzureSettings
from agent.wire.storage_settings import StorageSettings

MAX_BLOCKS: Final = 50_000


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls, for `azure`."""
    around = surroundings or Surroundings()
    if settings.azure is None:
        raise ConfigError("the settings have no section storage.azure")
    return await AzureStorage.open(settings.azure.at_node(around.node), around)


class AzureStorage(CloudStorage[Connection]):
    """See `agent.storage.base.Storage`. Create it with `AzureStorage.open`."""

    delete_at_once = 256
    without_batches = (Permanent,)  # a token for one container may not ask for batches
    max_object_bytes = 190 << 40

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        super().__init__(
            connection,
            AzureRanges(connection),
            Plan(settings.upload_part_size, MAX_BLOCKS, settings.upload_concurrency),
        )
        self._listing = OrderedListing(AzurePages(connection).below, connection.address)

    @classmethod
    async def open(
        cls, settings: AzureSettings, surroundings: Surroundings | None = None
    ) -> AzureStorage:
        """Prepare a client of one container; nothing is sent yet. Raises `ConfigError`."""
        return cls(await Connection.open(settings, surroundings or Surroundings()))

    @property
    def credentials_left_s(self) -> float | None:
        """For how many seconds a SAS token is good, once the server has answered."""
        return self._connection.sas_left_s

    async def _target(self, key: str) -> BlobUpload:
        return BlobUpload(self._connection, self._threads, key)

    def _pages(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        return self._listing.keys(prefix, after)

    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""
        return await describe(self._connection, probe)

    async def _delete_one(self, key: str) -> None:
        name = self._connection.name(key)
        await self._connection.call("delete", key, lambda container: container.delete_blob(name))

    async def _delete_batch(self, batch: list[str]) -> None:
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
