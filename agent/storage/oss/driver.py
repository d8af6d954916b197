"""Objects in a bucket of Alibaba Cloud OSS, in its own protocol with signatures of version 4.

Every request is tried again by itself, parts of an upload included, and the wrappers leave `put` to
this driver. Nothing is sent that asks for more than the actions in docs/storage/oss.md: no ACL, no
tag, no version.
"""

from __future__ import annotations

import base64
import builtins
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final
from urllib.parse import unquote
from xml.sax.saxutils import escape

from agent.errors import ConfigError, ObjectNotFound, StorageUnavailable
from agent.storage.base import Capabilities, ObjectInfo, Storage
from agent.storage.keys import check_key, check_prefix
from agent.storage.multipart import Plan, upload
from agent.storage.oss.connection import MAX_CONNECTIONS, Connection
from agent.storage.oss.listing import listed, parsed
from agent.storage.oss.manners import Manners
from agent.storage.oss.reading import ObjectRanges
from agent.storage.oss.writing import ObjectUpload
from agent.storage.precedence import Choice
from agent.storage.probe import probe
from agent.storage.ranges import Range, Reader
from agent.storage.surroundings import Surroundings
from agent.storage.threads import Threads
from agent.wire.storage_oss import OssSettings
from agent.wire.storage_settings import StorageSettings

DELETE_BATCH: Final = 1000
HASHING_THREADS: Final = 2
MAX_OBJECT_BYTES: Final = 48_800 << 30
"""The service's own limit, 48.8 TB."""


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls."""
    around = surroundings or Surroundings()
    if settings.oss is None:
        raise ConfigError("the settings have no section storage.oss")
    return await OssStorage.open(settings.oss.at_node(around.node), around)


class OssStorage:
    """See `agent.storage.base.Storage`. Create it with `OssStorage.open`."""

    def __init__(self, connection: Connection, threads: Threads) -> None:
        settings = connection.settings
        self._connection = connection
        self._threads = threads
        self._manners = Manners()
        self._ranges = ObjectRanges(connection)
        self._reader = Reader(self._ranges, settings.upload_part_size, settings.upload_concurrency)
        self._plan = Plan(
            settings.upload_part_size, settings.max_upload_parts, settings.upload_concurrency
        )

    @classmethod
    async def open(
        cls, settings: OssSettings, surroundings: Surroundings | None = None
    ) -> OssStorage:
        """Prepare a client of one bucket; nothing is sent yet. Raises `ConfigError`."""
        connection = await Connection.open(settings, surroundings or Surroundings())
        return cls(connection, Threads(HASHING_THREADS, "tidelog-oss"))

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do with this bucket."""
        return Capabilities(
            conditional_put=self._manners.heeds_condition is not False,
            strong_list=True,
            max_object_bytes=min(self._plan.max_object_bytes, MAX_OBJECT_BYTES),
            max_concurrency=MAX_CONNECTIONS,
            retries_put=True,
        )

    @property
    def address(self) -> str:
        """`oss://bucket/prefix`."""
        return self._connection.address

    @property
    def credentials(self) -> Choice:
        """Which link of the credential chain is used."""
        return self._connection.signer.choice

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """One request where it fits in one part, an upload in parallel parts elsewhere."""
        check_key(key)
        size_bytes = await upload(
            source,
            ObjectUpload(self._connection, self._manners, self._threads, key),
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
        """HeadObject."""
        return ObjectInfo(key, await self._ranges.size_bytes(check_key(key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Page by page, as far as the caller draws."""
        async for found in listed(self._connection, check_prefix(prefix), after):
            yield found

    async def delete(self, keys: Iterable[str]) -> None:
        """A thousand a request; with versioning the versions stay."""
        remaining = iter(keys)
        while batch := [check_key(key) for key in islice(remaining, DELETE_BATCH)]:
            await (self._delete_one(batch[0]) if len(batch) == 1 else self._delete_batch(batch))

    async def verify(self) -> None:
        """Write, list, read back and delete a probe object."""
        await probe(self)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()
        await self._threads.aclose()

    async def _delete_one(self, key: str) -> None:
        try:
            await self._connection.call("DELETE", "delete", key, name=self._connection.name(key))
        except ObjectNotFound:
            return

    async def _delete_batch(self, batch: builtins.list[str]) -> None:
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
            raise StorageUnavailable(
                f"{self._connection.cannot('delete', left[0])}: {len(left)} of {len(batch)} objects"
                " are still there",
                hint="a retention policy (WORM) keeps objects until it ends",
            )
