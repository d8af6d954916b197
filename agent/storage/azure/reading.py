"""How a range of a blob is asked for: the Azure side of `agent.storage.ranges`."""

from __future__ import annotations

from azure.storage.blob.aio import ContainerClient

from agent.errors import ObjectNotFound
from agent.storage.azure.connection import Connection
from agent.storage.azure.discarding import is_discarded
from agent.storage.ranges import Body


class AzureRanges:
    """Ranges of blobs of one container."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def fetch(self, key: str, offset: int, length: int) -> Body:
        """Get Blob with a range, read to its end: the SDK holds it in memory anyway."""

        async def get(container: ContainerClient) -> Body:
            blob = container.get_blob_client(self._connection.name(key))
            found = await blob.download_blob(offset, length, max_concurrency=1)
            total = int(str(found.properties.content_range).rpartition("/")[2])
            return _Held(await found.readall(), total)

        return await self._connection.call("read", key, get)

    async def size_bytes(self, key: str) -> int:
        """Get Blob Properties. Raises `ObjectNotFound`."""
        found = await self._connection.call(
            "read",
            key,
            lambda container: container.get_blob_client(
                self._connection.name(key)
            ).get_blob_properties(),
        )
        if is_discarded(found):
            raise ObjectNotFound(f"{self.cannot('read', key)}: there is no such blob")
        return int(found.size)

    def cannot(self, action: str, key: str | None) -> str:
        """As the connection says it."""
        return self._connection.cannot(action, key)


class _Held:
    """A range in memory, handed out as it is where it is wanted whole."""

    def __init__(self, data: bytes, total_bytes: int) -> None:
        self._data = data
        self._at = 0
        self.total_bytes = total_bytes

    async def read(self, size_bytes: int) -> bytes:
        if self._at == 0 and size_bytes >= len(self._data):
            block, self._data = self._data, b""
            return block
        block = self._data[self._at : self._at + size_bytes]
        self._at += len(block)
        return block

    def close(self) -> None:
        self._data = b""
