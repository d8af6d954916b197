"""Pages of a listing of a container.

Azure lists in order and cannot begin in the middle: what comes before `after` is drawn and dropped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from azure.storage.blob.aio import ContainerClient

from agent.storage.azure.connection import Connection
from agent.storage.azure.discarding import is_discarded
from agent.storage.base import ObjectInfo

PAGE: Final = 5000


class AzurePages:
    """Lists one repository, for `agent.storage.ordered`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def below(self, prefix: str, after: str | None) -> AsyncIterator[list[ObjectInfo]]:
        """List Blobs."""
        token: str | None = None
        while True:

            async def page(
                container: ContainerClient, token: str | None = token
            ) -> tuple[list[ObjectInfo], str | None]:
                return await self._page(container, prefix, token)

            found, token = await self._connection.call("list", prefix, page)
            yield found
            if not token:
                return

    async def _page(
        self, container: ContainerClient, prefix: str, token: str | None
    ) -> tuple[list[ObjectInfo], str | None]:
        name = self._connection.name(prefix)
        pages: Any = container.list_blobs(name_starts_with=name, results_per_page=PAGE)
        pages = pages.by_page(token)
        blobs: Any = await anext(pages, None)
        if blobs is None:
            return [], None
        found = [self._info(blob) async for blob in blobs if _is_object(blob)]
        return found, pages.continuation_token

    def _info(self, blob: Any) -> ObjectInfo:
        return ObjectInfo(blob.name.removeprefix(self._connection.name("")), int(blob.size))


def _is_object(blob: Any) -> bool:
    """Not a marker of a folder, and nothing that is only there to be deleted."""
    return not is_discarded(blob) and not blob.name.endswith("/")
