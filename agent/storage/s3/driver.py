"""Objects in a bucket of S3, or of a server that speaks its protocol (MinIO, SeaweedFS, Ceph, …).

Every request is tried again by itself, parts of an upload included, and the wrappers leave `put` to
this driver. Nothing is sent that asks for more than the permissions in docs/storage/s3.md: no ACL,
no tag, no version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from agent.errors import ConfigError, Permanent, PermissionDenied, StorageUnavailable
from agent.storage.answers import Unsupported
from agent.storage.base import ObjectInfo, Storage
from agent.storage.cloud import CloudStorage
from agent.storage.describing import Description
from agent.storage.multipart import Plan
from agent.storage.s3.connection import Connection
from agent.storage.s3.describing import describe
from agent.storage.s3.listing import Listing
from agent.storage.s3.manners import Manners
from agent.storage.s3.reading import ObjectRanges
from agent.storage.s3.unfinished import BucketUploads
from agent.storage.s3.writing import ObjectUpload
from agent.storage.surroundings import Surroundings
from agent.wire.storage_s3 import S3Settings
from agent.wire.storage_settings import StorageSettings

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


class S3Storage(CloudStorage[Connection]):
    """See `agent.storage.base.Storage`. Create it with `S3Storage.open`."""

    delete_at_once = 1000
    without_batches = (Unsupported,)
    max_object_bytes = 5 << 40

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        super().__init__(
            connection,
            ObjectRanges(connection),
            Plan(settings.upload_part_size, settings.max_upload_parts, settings.upload_concurrency),
            BucketUploads(connection),
        )
        self._manners = Manners(connection)
        self._listing = Listing(connection, self._manners)

    @classmethod
    async def open(
        cls, settings: S3Settings, surroundings: Surroundings | None = None
    ) -> S3Storage:
        """Prepare a client of one bucket; nothing is sent yet. Raises `ConfigError`."""
        return cls(await Connection.open(settings, surroundings or Surroundings()))

    @property
    def _is_conditional(self) -> bool:
        return self._manners.conditional

    async def _target(self, key: str) -> ObjectUpload:
        await self._manners.settle()
        return ObjectUpload(self._connection, self._manners, self._threads, key)

    def _pages(self, prefix: str, after: str | None) -> AsyncIterator[ObjectInfo]:
        return self._listing.keys(prefix, after)

    async def describe(self, probe: str) -> Description:
        """See `agent.storage.describing.Describing`."""
        return await describe(self._connection, probe)

    async def _delete_one(self, key: str) -> None:
        name = self._connection.name(key)
        await self._connection.call("delete_object", "delete", key, Key=name)

    async def _delete_batch(self, batch: list[str]) -> None:
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
        self, names: dict[str, str], refused: list[dict[str, Any]]
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
