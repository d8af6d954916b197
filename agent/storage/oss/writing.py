"""One object on its way into a bucket: the OSS side of `agent.storage.multipart`.

The service computes a CRC-64 over whatever it stores and answers with it. That of each part, and
that of the whole, which is joined from those of the parts, are compared with what was sent: a part
that differs is sent again, an object that differs is removed and the `put` fails.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote
from xml.sax.saxutils import escape

from agent.errors import IntegrityError, ObjectNotFound, StorageUnavailable
from agent.storage.answers import NoSuchUpload
from agent.storage.bodies import RequestBody
from agent.storage.oss import headers
from agent.storage.oss.checksum import crc64_joined, crc64_of
from agent.storage.oss.connection import Connection
from agent.storage.oss.listing import parsed
from agent.storage.oss.manners import Manners
from agent.storage.publishing import Publication
from agent.storage.threads import Threads

HASH_IN_THREAD: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Receipt:
    """A part that is stored."""

    number: int
    etag: str
    crc64: int
    size_bytes: int


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
        self._what = connection.cannot("write", key)
        self._upload_id: str | None = None
        self._began = False
        self._publication = Publication(
            self._look, self._remove, self._what, connection.surroundings.clock
        )

    async def whole(self, body: bytes) -> None:
        """PutObject. The digest of the body goes along, so that what was changed on the way is
        refused before it is visible."""
        await self._look_first()
        digest = await self._threads.run(lambda: _md5(body)) if _is_long(body) else _md5(body)
        attributes = headers.new_object(self._connection.settings, self._publication.mark)
        given = {**attributes, headers.FORBID_OVERWRITE: "true", "Content-MD5": digest}
        with RequestBody(body) as stream:
            answer = await self._publish(method="PUT", headers=given, body=stream)
        await self._compare(answer or await self._call("HEAD"), crc64_of(body), len(body), answer)

    async def begin(self) -> None:
        """InitiateMultipartUpload, unless the key is taken."""
        await self._publication.refuse_taken()
        self._began = True
        attributes = headers.new_object(self._connection.settings, self._publication.mark)
        answer = await self._call("POST", query={"uploads": ""}, headers=attributes)
        found = parsed(answer.http_response.content, self._what).findtext("UploadId")
        if not found:
            raise StorageUnavailable(f"{self._what}: the answer names no upload")
        self._upload_id = found

    async def part(self, number: int, body: bytes) -> Receipt:
        """UploadPart."""
        with RequestBody(body) as stream:
            answer = await self._call(
                "PUT",
                query={"partNumber": str(number), "uploadId": self._upload_id or ""},
                headers={"Content-Type": "application/octet-stream"},
                body=stream,
            )
        wanted, found = crc64_of(body), _crc64_in(answer)
        if found not in (None, wanted):
            raise StorageUnavailable(f"{self._what}: part {number} arrived with other bytes")
        return Receipt(number, str(answer.headers["ETag"]), wanted, len(body))

    async def finish(self, receipts: list[Receipt], size_bytes: int) -> None:
        """CompleteMultipartUpload, and a look at what it made."""
        await self._look_first()
        parts = "".join(
            f"<Part><PartNumber>{each.number}</PartNumber><ETag>{escape(each.etag)}</ETag></Part>"
            for each in receipts
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        given = {"Content-Type": "application/xml", headers.FORBID_OVERWRITE: "true"}
        query = {"uploadId": self._upload_id or ""}
        try:
            await self._publish(method="POST", query=query, headers=given, body=body)
        except NoSuchUpload:
            if not await self._publication.is_there():
                raise
        crc64 = crc64_joined((each.crc64, each.size_bytes) for each in receipts)
        await self._compare(await self._call("HEAD"), crc64, size_bytes, None)

    async def abort(self) -> None:
        """Leave no part, no upload and no object of this `put`."""
        if self._upload_id is not None:
            await self._abort_upload(self._upload_id)
        elif self._began:
            for upload_id in await self._uploads_of_key():
                await self._abort_upload(upload_id)
        await self._publication.withdraw()

    async def _look_first(self) -> None:
        if not self._manners.heeds_condition:
            await self._publication.refuse_taken()

    async def _publish(self, **request: Any) -> Any:
        """The request that makes the object visible. None where an earlier attempt had."""
        answer = await self._publication.publish(lambda: self._call(**request))
        if answer is not None:
            self._manners.learn(answer.headers)
        return answer

    async def _compare(self, found: Any, crc64: int, size_bytes: int, put: Any) -> None:
        """Whether what is stored is what was sent; the answer to PutObject has no size."""
        stored = size_bytes if put is not None else int(found.headers["Content-Length"])
        if stored == size_bytes and _crc64_in(found) in (None, crc64):
            return
        await self._remove()
        raise IntegrityError(
            f"{self._what}: {size_bytes} bytes with the CRC-64 {crc64} were sent, {stored} with "
            f"{_crc64_in(found)} were stored",
            hint="something on the way changed them; try again and look at proxies and memory",
        )

    async def _call(self, method: str, **more: Any) -> Any:
        return await self._connection.call(method, "write", self._key, name=self._name, **more)

    async def _look(self) -> str | None:
        found: str | None = (await self._call("HEAD")).headers.get(headers.MARK_HEADER)
        return found

    async def _remove(self) -> None:
        await self._call("DELETE")

    async def _abort_upload(self, upload_id: str) -> None:
        attempts = self._connection.attempts("put", self._key)
        try:
            await attempts.run(lambda: self._call("DELETE", query={"uploadId": upload_id}))
        except (NoSuchUpload, ObjectNotFound):
            return

    async def _uploads_of_key(self) -> list[str]:
        answer = await self._connection.call(
            "GET",
            "write",
            self._key,
            query={"uploads": "", "prefix": self._name, "encoding-type": "url"},
        )
        found = parsed(answer.http_response.content, self._what).iterfind("Upload")
        return [
            each.findtext("UploadId", "")
            for each in found
            if unquote(each.findtext("Key", "")) == self._name
        ]


def _is_long(body: bytes) -> bool:
    return len(body) >= HASH_IN_THREAD


def _md5(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _crc64_in(answer: Any) -> int | None:
    found = answer.headers.get(headers.CRC64)
    return None if found is None else int(found)
