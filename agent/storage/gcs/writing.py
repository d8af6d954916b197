"""One object on its way into a bucket: the side of GCS of `agent.storage.multipart`.

What is longer than a part goes up in one resumable session, chunk behind chunk: it is invisible
until its last chunk, and a chunk that failed goes on where the server says it has arrived. The last
chunk names the length, so each one is held back until the next is there.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

from fastcrc import crc32

from agent.errors import (
    IntegrityError,
    ObjectNotFound,
    Permanent,
    StorageUnavailable,
)
from agent.storage.bodies import RequestBody
from agent.storage.gcs.connection import Connection, path_of
from agent.storage.publishing import MARK, Publication

CHUNK_UNIT: Final = 256 * 1024
"""Chunks but the last are multiples of it."""
_PIECE: Final = 256 * 1024
_GOES_ON: Final = 308
_CANCELLED: Final = 499
_RANGE: Final = re.compile(r"bytes=0-(\d+)")


class ObjectUpload:
    """A `Target` of one `put`; its parts come one after the other."""

    def __init__(self, connection: Connection, key: str) -> None:
        self._connection = connection
        self._key = key
        self._generation = ""
        self._publication = Publication(
            self._look, self._remove, self._cannot(), connection.surroundings.clock
        )
        self._session: str | None = None
        self._held: bytes | None = None
        self._hashed = 0
        self._crc = crc32.iscsi(b"")
        self._sent = 0
        """Bytes that the server has for sure."""
        self._is_sure = True

    async def whole(self, body: bytes) -> None:
        """Objects: insert, with the description and the bytes in one request."""
        if self._hashed == 0:
            self._hash(1, body)
        described = {**self._described(), "crc32c": self._told_crc()}
        boundary = secrets.token_hex(12)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
            f"{json.dumps(described)}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/related; boundary={boundary}",
            "Content-Length": str(len(head) + len(body) + len(tail)),
        }

        async def insert() -> dict[str, Any]:
            return await self._connection.call(
                ("write", self._key),
                "POST",
                self._connection.objects(upload=True),
                parameters={"uploadType": "multipart", **self._conditions()},
                headers=headers,
                data=_pieces(head, body, tail),
            )

        found = await self._publication.publish(insert)
        await self._check(found or await self._resource(), len(body))

    async def begin(self) -> None:
        """Begin a resumable session, unless the key is taken."""
        await self._publication.refuse_taken()
        async with self._connection.asking(
            ("write", self._key),
            "POST",
            self._connection.objects(upload=True),
            parameters={"uploadType": "resumable", **self._conditions()},
            headers={
                "Content-Type": "application/json; charset=UTF-8",
                "X-Upload-Content-Type": "application/octet-stream",
            },
            data=json.dumps(self._described()).encode(),
        ) as answer:
            self._session = path_of(answer.headers.get("Location", ""))
        if not self._session:
            raise Permanent(f"{self._cannot()}: the server began no session for the upload")

    async def part(self, number: int, body: bytes) -> int:
        """Send the part before this one, and hold this one back."""
        self._hash(number, body)
        if self._held is not None:
            await self._send(self._held, None)
        self._held = body
        return number

    async def finish(self, receipts: list[int], size_bytes: int) -> None:
        """Send the last part, which names the length, and compare what the server made of it."""
        found: dict[str, Any] | None = None
        try:
            found = await self._publication.publish(
                lambda: self._send(self._held or b"", size_bytes)
            )
        except ObjectNotFound:  # the session is gone: completed, or aborted
            if not await self._publication.is_there():
                raise
        await self._check(found or await self._resource(), size_bytes)
        self._held = None

    async def abort(self) -> None:
        """Leave no session and no object of this `put`."""
        self._held = None
        if self._session is not None:
            await self._cancel_session(self._session)
        await self._publication.withdraw()

    async def _send(self, body: bytes, total: int | None) -> dict[str, Any] | None:
        """One chunk; answers the object's resource behind the last. Tried again after an error, it
        asks what has arrived and sends the rest."""
        begin = self._sent
        if not self._is_sure:
            done, arrived = await self._arrived(total)
            if done is not None:
                return done
            begin = self._checked(arrived, len(body))
        self._is_sure = False
        answer = await self._put_chunk(body, begin, total)
        if not isinstance(answer, int):
            return answer
        if answer != self._sent + len(body) or total is not None:
            raise StorageUnavailable(f"{self._cannot()}: only {answer} bytes have arrived")
        self._sent = answer
        self._is_sure = True
        return None

    def _checked(self, arrived: int, length: int) -> int:
        if not self._sent <= arrived <= self._sent + length:
            raise Permanent(f"{self._cannot()}: the server has lost what it had confirmed")
        return arrived

    async def _put_chunk(self, body: bytes, begin: int, total: int | None) -> dict[str, Any] | int:
        rest = memoryview(body)[begin - self._sent :]
        end = begin + len(rest)
        told = "*" if total is None else str(total)
        span = f"{begin}-{end - 1}" if len(rest) else "*"
        return await self._put(bytes(rest) if begin != self._sent else body, f"bytes {span}/{told}")

    async def _arrived(self, total: int | None) -> tuple[dict[str, Any] | None, int]:
        answer = await self._put(b"", "bytes */*" if total is None else f"bytes */{total}")
        return (None, answer) if isinstance(answer, int) else (answer, 0)

    async def _put(self, body: bytes, content_range: str) -> dict[str, Any] | int:
        """The object's resource if it is complete, else how many bytes have arrived."""
        async with self._connection.asking(
            ("write", self._key),
            "PUT",
            self._session or "",
            headers={"Content-Range": content_range, "Content-Length": str(len(body))},
            data=RequestBody(body) if body else None,
            fine=(_GOES_ON,),
        ) as answer:
            if answer.status == _GOES_ON:
                found = _RANGE.fullmatch(answer.headers.get("Range", ""))
                return int(found[1]) + 1 if found else 0
            return dict(await answer.json(content_type=None))

    async def _check(self, found: dict[str, Any], size_bytes: int) -> None:
        size, crc = int(found.get("size", -1)), found.get("crc32c")
        if size != size_bytes or (crc is not None and crc != self._told_crc()):
            self._publication.in_doubt = True
            raise IntegrityError(
                f"{self._cannot()}: {size_bytes} bytes with CRC32C {self._told_crc()} were sent, "
                f"{size} with {crc} are stored"
            )

    def _hash(self, number: int, body: bytes) -> None:
        """CRC32C. Gigabytes a second, so it needs no thread."""
        if number > self._hashed:  # else this part is tried again
            self._crc = crc32.iscsi(body, self._crc)
            self._hashed = number

    def _told_crc(self) -> str:
        return base64.b64encode(self._crc.to_bytes(4, "big")).decode()

    def _cannot(self) -> str:
        return self._connection.cannot("write", self._key)

    def _conditions(self) -> dict[str, str]:
        """Write once; and the key that encrypts it."""
        kms = self._connection.settings.kms_key_name
        return {"ifGenerationMatch": "0", **({"kmsKeyName": kms} if kms else {})}

    def _described(self) -> dict[str, Any]:
        storage_class = self._connection.settings.storage_class
        return {
            "name": self._connection.name(self._key),
            "contentType": "application/octet-stream",
            "metadata": {MARK: self._publication.mark},
            **({"storageClass": storage_class} if storage_class else {}),
        }

    async def _resource(self) -> dict[str, Any]:
        return await self._connection.call(
            ("write", self._key), "GET", self._connection.objects(self._key)
        )

    async def _look(self) -> str | None:
        found = await self._resource()
        self._generation = str(found.get("generation", ""))
        mark = found.get("metadata", {}).get(MARK)
        return None if mark is None else str(mark)

    async def _remove(self) -> None:
        """Exactly the one that was looked at."""
        await self._connection.call(
            ("delete", self._key),
            "DELETE",
            self._connection.objects(self._key),
            parameters={"ifGenerationMatch": self._generation},
        )

    async def _cancel_session(self, session: str) -> None:
        async def cancel() -> None:
            async with self._connection.asking(
                ("write", self._key), "DELETE", session, fine=(_CANCELLED, 404, 410)
            ):
                return

        await self._connection.attempts("put", self._key).run(cancel)


async def _pieces(head: bytes, body: bytes, tail: bytes) -> AsyncIterator[bytes]:
    yield head
    for begin in range(0, len(body), _PIECE):
        yield body[begin : begin + _PIECE]
    yield tail
