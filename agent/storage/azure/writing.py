"""One object on its way into a container: the Azure side of `agent.storage.multipart`.

Blocks are staged in parallel and committed under the condition that there is no blob of that name.
Their names begin with the mark of `agent.storage.publishing`, so that two writers of one key never
commit each other's blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, ContentSettings, StandardBlobTier
from azure.storage.blob.aio import ContainerClient

from agent.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    StorageUnavailable,
)
from agent.storage.azure.connection import Connection
from agent.storage.azure.discarding import (
    delete_version,
    discard_blocks,
    discard_late_blocks,
    is_discarded,
)
from agent.storage.azure.errors import BlocksGone
from agent.storage.publishing import Publication
from agent.storage.threads import Threads

MARK: Final = "tidelogput"
"""Names of metadata are identifiers."""
HASH_IN_THREAD: Final = 256 * 1024


class BlobUpload:
    """A `Target` of one `put`."""

    def __init__(self, connection: Connection, threads: Threads, key: str) -> None:
        self._connection = connection
        self._threads = threads
        self._key = key
        self._name = connection.name(key)
        self._etag = ""
        self._publication = Publication(
            self._look,
            self._remove,
            connection.cannot("write", key),
            connection.surroundings.clock,
        )
        self._has_blocks = False
        self._unanswered = 0
        """Requests for a block that ended without an answer: they may still be carried out."""

    async def whole(self, body: bytes) -> None:
        """Put Blob."""
        md5 = await self._md5(body)

        async def put(container: ContainerClient) -> Any:
            return await container.get_blob_client(self._name).upload_blob(
                body,
                length=len(body),
                overwrite=False,
                content_settings=_settings(md5),
                **self._attributes(),
            )

        await self._publish(put)

    async def begin(self) -> None:
        """Nothing is begun on the server; only a taken key is refused."""
        await self._publication.refuse_taken()

    async def part(self, number: int, body: bytes) -> str:
        """Put Block."""
        md5 = await self._md5(body)
        block_id = f"{self._publication.mark}-{number:05d}"
        self._has_blocks = True

        async def stage(container: ContainerClient) -> None:
            await container.get_blob_client(self._name).stage_block(
                block_id, body, len(body), transactional_content_md5=md5
            )

        self._unanswered += 1
        await self._connection.call("write", self._key, stage)
        self._unanswered -= 1
        return block_id

    async def finish(self, receipts: list[str], size_bytes: int) -> None:
        """Put Block List, and a look at what it made."""
        blocks = [BlobBlock(block_id) for block_id in receipts]

        async def commit(container: ContainerClient) -> Any:
            return await container.get_blob_client(self._name).commit_block_list(
                blocks,
                match_condition=MatchConditions.IfMissing,
                content_settings=_settings(None),
                **self._attributes(),
            )

        await self._publish(commit)
        self._has_blocks = False
        found = await self._properties()
        if found.size != size_bytes:
            self._publication.in_doubt = True
            raise IntegrityError(
                f"{self._connection.cannot('write', self._key)}: {size_bytes} bytes were sent and "
                f"{found.size} are stored"
            )

    async def abort(self) -> None:
        """Leave no block and no blob of this `put`."""
        await self._publication.withdraw()
        if self._has_blocks:
            await discard_blocks(self._connection, self._key)
            if self._unanswered:
                await discard_late_blocks(self._connection, self._key)

    async def _publish(self, request: Callable[[ContainerClient], Awaitable[Any]]) -> None:
        call = self._connection.call
        try:
            await self._publication.publish(lambda: call("write", self._key, request))
        except (ObjectExists, BlocksGone) as error:
            found = await self._found()
            if found is None and isinstance(error, ObjectExists):
                # What was left by a discard: it is gone now, so the next attempt succeeds.
                raise StorageUnavailable(f"{error}, by a blob that was just deleted") from error
            if found is None:
                raise
            self._has_blocks = False  # whatever was committed last threw them away
            if _mark_of(found) != self._publication.mark:
                what = self._connection.cannot("write", self._key)
                raise ObjectExists(f"{what}: the key is taken") from error

    def _attributes(self) -> dict[str, Any]:
        tier = self._connection.settings.access_tier
        more = {"standard_blob_tier": StandardBlobTier(tier)} if tier else {}
        return {"metadata": {MARK: self._publication.mark}, **more}

    async def _md5(self, body: bytes) -> bytearray:
        def digest() -> bytearray:
            return bytearray(hashlib.md5(body, usedforsecurity=False).digest())

        if len(body) < HASH_IN_THREAD:
            return digest()
        return await self._threads.run(digest)

    async def _properties(self) -> Any:
        return await self._connection.call(
            "write",
            self._key,
            lambda container: container.get_blob_client(self._name).get_blob_properties(),
        )

    async def _found(self) -> Any:
        """The properties of the object that is there; what was left by a discard goes away."""
        try:
            found = await self._properties()
        except ObjectNotFound:
            return None
        if is_discarded(found):
            await delete_version(self._connection, self._key, found.etag)
            return None
        return found

    async def _look(self) -> str | None:
        found = await self._found()
        if found is None:
            raise ObjectNotFound(f"{self._connection.cannot('write', self._key)}: it is not there")
        self._etag = str(found.etag)
        return _mark_of(found)

    async def _remove(self) -> None:
        """Exactly the one that was looked at."""
        await delete_version(self._connection, self._key, self._etag)
        self._has_blocks = False


def _mark_of(found: Any) -> str | None:
    mark = (found.metadata or {}).get(MARK)
    return None if mark is None else str(mark)


def _settings(md5: bytearray | None) -> ContentSettings:
    return ContentSettings(content_type="application/octet-stream", content_md5=md5)
