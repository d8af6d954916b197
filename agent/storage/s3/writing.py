"""One object on its way into a bucket: the S3 side of `agent.storage.multipart`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from agent.errors import IntegrityError, ObjectNotFound, StorageUnavailable
from agent.storage.answers import NoSuchUpload, Unsupported
from agent.storage.bodies import RequestBody
from agent.storage.publishing import MARK, Publication
from agent.storage.s3.connection import Connection
from agent.storage.s3.manners import CRC32, Manners, checksum
from agent.storage.threads import Threads

HASH_IN_THREAD: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Receipt:
    """A part that is stored."""

    number: int
    etag: str
    checksum: dict[str, Any]

    def named(self) -> dict[str, Any]:
        """As CompleteMultipartUpload wants it."""
        told = {name: value for name, value in self.checksum.items() if name != "ContentMD5"}
        return {"PartNumber": self.number, "ETag": self.etag, **told}


class ObjectUpload:
    """A `Target` of one `put`."""

    def __init__(
        self, connection: Connection, manners: Manners, threads: Threads, key: str
    ) -> None:
        self._connection = connection
        self._manners = manners
        self._threads = threads
        self._key = key
        self._name = connection.name(key)
        self._upload_id: str | None = None
        self._began = False
        self._publication = Publication(
            self._look, self._remove, connection.cannot("write", key), connection.surroundings.clock
        )

    async def whole(self, body: bytes) -> None:
        """PutObject."""
        carried = await self._checksum(body)
        if not self._manners.conditional:
            await self._publication.refuse_taken()
        with RequestBody(body) as stream:
            answer = await self._publish(
                "put_object",
                Body=stream,
                ContentLength=len(body),
                **carried,
                **self._attributes(),
            )
        _compare(answer, carried, self._connection.cannot("write", self._key))

    async def begin(self) -> None:
        """CreateMultipartUpload, unless the key is taken."""
        await self._publication.refuse_taken()
        self._began = True
        more = {"ChecksumAlgorithm": "CRC32"} if self._manners.checksum == CRC32 else {}
        answer = await self._call("create_multipart_upload", **self._attributes(), **more)
        self._upload_id = str(answer["UploadId"])

    async def part(self, number: int, body: bytes) -> Receipt:
        """UploadPart."""
        carried = await self._checksum(body)
        with RequestBody(body) as stream:
            answer = await self._call(
                "upload_part",
                UploadId=self._upload_id,
                PartNumber=number,
                Body=stream,
                ContentLength=len(body),
                **carried,
                **self._connection.encryption.customer(),
            )
        _compare(answer, carried, self._connection.cannot("write", self._key))
        return Receipt(number, str(answer["ETag"]), carried)

    async def finish(self, receipts: list[Receipt], size_bytes: int) -> None:
        """CompleteMultipartUpload, and a look at what it made."""
        if not self._manners.conditional:
            await self._publication.refuse_taken()
        parts = [receipt.named() for receipt in receipts]
        try:
            await self._publish(
                "complete_multipart_upload",
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
            )
        except NoSuchUpload:
            if not await self._publication.is_there():
                raise
        stored = (await self._head())["ContentLength"]
        if stored != size_bytes:
            self._publication.in_doubt = True
            raise IntegrityError(
                f"{self._connection.cannot('write', self._key)}: {size_bytes} bytes were sent and "
                f"{stored} are stored"
            )

    async def abort(self) -> None:
        """Leave no part, no upload and no object of this `put`."""
        if self._upload_id is not None:
            await self._abort_upload(self._upload_id)
        elif self._began:
            for upload_id in await self._uploads_of_key():
                await self._abort_upload(upload_id)
        await self._publication.withdraw()

    async def _publish(self, operation: str, **parameters: Any) -> dict[str, Any]:
        if self._manners.conditional:
            parameters["IfNoneMatch"] = "*"
        return await self._publication.publish(lambda: self._call(operation, **parameters)) or {}

    def _attributes(self) -> dict[str, Any]:
        storage_class = self._connection.settings.storage_class
        return {
            "Metadata": {MARK: self._publication.mark},
            "ContentType": "application/octet-stream",
            **({"StorageClass": storage_class} if storage_class else {}),
            **self._connection.encryption.new_object(),
        }

    async def _checksum(self, body: bytes) -> dict[str, Any]:
        mode = self._manners.checksum
        if mode == CRC32 or len(body) < HASH_IN_THREAD:
            return checksum(mode, body)  # gigabytes a second, so it needs no thread
        return await self._threads.run(lambda: checksum(mode, body))

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        return await self._connection.call(
            operation, "write", self._key, Key=self._name, **parameters
        )

    async def _head(self) -> dict[str, Any]:
        return await self._call("head_object", **self._connection.encryption.customer())

    async def _look(self) -> str | None:
        found: str | None = (await self._head()).get("Metadata", {}).get(MARK)
        return found

    async def _remove(self) -> None:
        await self._call("delete_object")

    async def _abort_upload(self, upload_id: str) -> None:
        attempts = self._connection.attempts("put", self._key)
        try:
            await attempts.run(lambda: self._call("abort_multipart_upload", UploadId=upload_id))
        except (NoSuchUpload, ObjectNotFound):
            return

    async def _uploads_of_key(self) -> list[str]:
        try:
            answer = await self._connection.call(
                "list_multipart_uploads", "write", self._key, Prefix=self._name
            )
        except Unsupported:
            return []
        found = answer.get("Uploads", [])
        return [str(each["UploadId"]) for each in found if each["Key"] == self._name]


def _compare(answer: dict[str, Any], sent: dict[str, Any], what: str) -> None:
    wanted, found = sent.get("ChecksumCRC32"), answer.get("ChecksumCRC32")
    if wanted is not None and found is not None and wanted != found:
        raise StorageUnavailable(f"{what}: its checksum is {found} on arrival, {wanted} was sent")
