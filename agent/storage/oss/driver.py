"""Objects in a bucket of Alibaba Cloud OSS, in its own protocol with signatures of version 4.

Every request is tried again by itself, parts of an upload included, and the wrappers leave `put` to
this driver. Nothing is sent that asks for more than the actions in docs/storage/oss.md: no ACL, no
tag, no version.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from urllib.parse import unquote
from xml.sax.saxutils import escape

from agent.errors import ConfigError, StorageUnavailable
from agent.storage.base import ObjectInfo, Storage
from agent.storage.cloud import CloudStorage
from agent.storage.describing import Description
from agent.storage.multipart import Plan
from agent.storage.oss.connection import Connection
from agent.storage.oss.describing import describe
from agent.storage.oss.listing import listed, parsed
from agent.storage.oss.manners import Manners
from agent.storage.oss.reading import ObjectRanges
from agent.storage.oss.unfinished import BucketUploads
from agent.storage.oss.writing import ObjectUpload
from agent.storage.surroundings import Surroundings
from agent.wire.storage_oss import OssSettings
from agent.wire.storage_settings import StorageSettings


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls."""
    around = surroundings or Surroundings()
    if settings.oss is None:
        raise ConfigError("the settings have no section storage.oss")
    return await OssStorage.open(settings.oss.at_node(around.node), around)


class OssStorage(CloudStorage[Connection]):
    """See `agent.storage.base.Storage`. Create it with `OssStorage.open`."""

    delete_at_once = 1000
    max_object_bytes = 48_800 << 30

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        super().__init__(
            connection,
            ObjectRanges(connection),
            Plan(settings.upload_part_size, settings.max_upload_parts, settings.upload_concurrency),
            BucketUploads(connection),
        )
        self._manners = Manners()

    @classmethod
    async def open(
        cls, settings: OssSettings, surroundings: Surroundings | None = None
    ) -> OssStorage:
        """Prepare a client of one bucket; nothing is sent yet. Raises `ConfigError`."""
        return cls(await Connection.open(settings, surroundings or Surroundings()))

    @property
    def _is_conditional(self) -> bool:
        return self._manners.heeds_condition is not False

    async def _target(self, key: str) -> ObjectUpload:
        return ObjectUpload(self._connection, self._manners, self._threads, key)

    def _pages(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        return listed(self._connection, prefix, after)

    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""
        return await describe(self._connection, probe)

    async def _delete_one(self, key: str) -> None:
        await self._connection.call("DELETE", "delete", key, name=self._connection.name(key))

    async def _delete_batch(self, batch: list[str]) -> None:
        """The answer names what is gone, absent objects among them; what it does not name is
        still there."""
        names = {self._connection.name(key): key for key in batch}
        objects = "".join(f"<Object><Key>{escape(name)}</Key></Object>" for name in names)
        body = f"<Delete><Quiet>false</Quiet>{objects}</Delete>".encode()
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        answer = await self._connection.call(
            "POST",
            "delete",
            batch[0],
            query={"delete": "", "encoding-type": "url"},
            headers={
                "Content-Type": "application/xml",
                "Content-MD5": base64.b64encode(digest).decode(),
            },
            body=body,
        )
        what = self._connection.cannot("delete", batch[0])
        found = parsed(answer.http_response.content, what).iterfind("Deleted")
        gone = {unquote(each.findtext("Key", "")) for each in found}
        left = [key for name, key in names.items() if name not in gone]
        if left:
            await self._delete_one(left[0])  # its answer says why
            raise StorageUnavailable(
                f"{self._connection.cannot('delete', left[0])}: {len(left)} of {len(batch)} objects"
                " are still there"
            )
