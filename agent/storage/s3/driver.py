"""Objects in a bucket of S3, or of a server that speaks its protocol (MinIO, SeaweedFS, Ceph, …).

Every request is tried again by itself, parts of an upload included, and the wrappers leave `put` to
this driver. Nothing is sent that asks for more than the permissions in docs/storage/s3.md: no ACL,
no tag, no version.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final

from agent.errors import (
    ConfigError,
    ObjectNotFound,
    Permanent,
    PermissionDenied,
    StorageUnavailable,
    TidelogError,
)
from agent.storage.base import Capabilities, ObjectInfo, Storage
from agent.storage.describing import Description
from agent.storage.keys import check_key, check_prefix
from agent.storage.multipart import Plan, upload
from agent.storage.precedence import Choice
from agent.storage.probe import probe
from agent.storage.ranges import Range, Reader
from agent.storage.s3.connection import Connection
from agent.storage.s3.describing import describe, try_parts
from agent.storage.s3.errors import Unsupported
from agent.storage.s3.listing import Listing
from agent.storage.s3.manners import Manners
from agent.storage.s3.reading import ObjectRanges
from agent.storage.s3.writing import ObjectUpload
from agent.storage.surroundings import Surroundings
from agent.storage.threads import Threads
from agent.wire.storage_s3 import S3Settings
from agent.wire.storage_settings import StorageSettings

DELETE_BATCH: Final = 1000
HASHING_THREADS: Final = 2
_TRY_AGAIN: Final = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"})


async def open_driver(
    settings: StorageSettings, surroundings: Surroundings | None = None
) -> Storage:
    """What `agent.storage.registry` calls, for `s3` and `minio`."""
    around = surroundings or Surroundings()
    section = settings.s3 if settings.type == "s3" else settings.minio
    if section is None:
        raise ConfigError(f"the settings have no section storage.{settings.type}")
    return await S3Storage.open(section.at_node(around.node), around)


class S3Storage:
    """See `agent.storage.base.Storage`. Create it with `S3Storage.open`."""

    def __init__(self, connection: Connection, threads: Threads) -> None:
        settings = connection.settings
        self._connection = connection
        self._threads = threads
        self._manners = Manners(connection)
        self._listing = Listing(connection, self._manners)
        self._ranges = ObjectRanges(connection)
        self._reader = Reader(self._ranges, settings.upload_part_size, settings.upload_concurrency)
        self._plan = Plan(
            settings.upload_part_size, settings.max_upload_parts, settings.upload_concurrency
        )

    @classmethod
    async def open(
        cls, settings: S3Settings, surroundings: Surroundings | None = None
    ) -> S3Storage:
        """Prepare a client of one bucket; nothing is sent yet. Raises `ConfigError`."""
        connection = await Connection.open(settings, surroundings or Surroundings())
        return cls(connection, Threads(HASHING_THREADS, "tidelog-s3"))

    @property
    def capabilities(self) -> Capabilities:
        """What this driver can do with this server."""
        return Capabilities(
            conditional_put=self._manners.conditional,
            strong_list=True,
            max_object_bytes=min(self._plan.max_object_bytes, 5 << 40),
            max_concurrency=self._connection.settings.max_connections,
            retries_put=True,
        )

    @property
    def address(self) -> str:
        """`s3://bucket/prefix`."""
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
        await self._manners.settle()
        target = ObjectUpload(self._connection, self._manners, self._threads, key)
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
        """HeadObject."""
        return ObjectInfo(key, await self._ranges.size_bytes(check_key(key)))

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Page by page, as far as the caller draws."""
        async for found in self._listing.keys(check_prefix(prefix), after):
            yield found

    async def delete(self, keys: Iterable[str]) -> None:
        """A thousand a request; with versioning the versions stay."""
        remaining = iter(keys)
        while batch := [check_key(key) for key in islice(remaining, DELETE_BATCH)]:
            if self._manners.batch_delete and len(batch) > 1:
                try:
                    await self._delete_batch(batch)
                    continue
                except Unsupported:
                    self._manners.batch_delete = False
            for key in batch:
                await self._delete_one(key)

    async def verify(self) -> None:
        """Write, list, read back and delete a probe object."""
        await probe(self)

    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""
        return await describe(self._connection, probe)

    async def try_parts(self, key: str) -> tuple[TidelogError | None, TidelogError | None]:
        """See `agent.storage.describing.UploadsInParts`."""
        return await try_parts(self._connection, self._manners, key)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._connection.aclose()
        await self._threads.aclose()

    async def _delete_one(self, key: str) -> None:
        name = self._connection.name(key)
        try:
            await self._connection.call("delete_object", "delete", key, Key=name)
        except ObjectNotFound:
            return

    async def _delete_batch(self, batch: builtins.list[str]) -> None:
        names = {self._connection.name(key): key for key in batch}
        answer = await self._connection.call(
            "delete_objects",
            "delete",
            batch[0],
            Delete={"Objects": [{"Key": name} for name in names], "Quiet": True},
        )
        refused = [error for error in answer.get("Errors", []) if error["Code"] != "NoSuchKey"]
        if refused:
            raise self._not_deleted(names, refused)

    def _not_deleted(
        self, names: dict[str, str], refused: builtins.list[dict[str, Any]]
    ) -> Permanent | StorageUnavailable:
        first: dict[str, Any] = refused[0]
        code, key = str(first["Code"]), names.get(str(first.get("Key")), "")
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        message = f"{self._connection.cannot('delete', key)}{more}: {code}"
        if code in _TRY_AGAIN:
            return StorageUnavailable(message)
        if code in ("AccessDenied", "AllAccessDisabled"):
            return PermissionDenied(
                message, hint="allow s3:DeleteObject; a locked object stays until its retention"
            )
        return Permanent(message)
