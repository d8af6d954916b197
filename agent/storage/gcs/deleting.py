"""Many deletions in one request: a multipart document of requests, and one of answers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import HTTP
from typing import Final

from agent.storage.gcs.connection import Connection
from agent.storage.gcs.errors import VENDOR_ERRORS, judged, translated

BATCH: Final = 100
PATH: Final = "/batch/storage/v1"
_STATUS: Final = re.compile(rb"HTTP/[\d.]+ (\d{3})")


async def delete_batch(connection: Connection, keys: list[str]) -> None:
    """Delete up to a hundred objects; absent ones are no error. Raises the first refusal."""
    boundary = f"batch-{secrets.token_hex(8)}"
    parts = [
        f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <{number}>\r\n\r\n"
        f"DELETE {connection.objects(key)} HTTP/1.1\r\n\r\n\r\n"
        for number, key in enumerate(keys)
    ]
    what = ("delete", keys[0])
    async with connection.asking(
        what,
        "POST",
        PATH,
        headers={"Content-Type": f"multipart/mixed; boundary={boundary}"},
        data=("".join(parts) + f"--{boundary}--\r\n").encode(),
    ) as answer:
        try:
            body = await answer.read()
        except VENDOR_ERRORS as error:
            raise translated(error, connection.cannot(*what)) from error
        answers = list(_answers(answer.headers.get("Content-Type", ""), body))
    for number, (status, text) in enumerate(answers):
        if status >= 300 and status != 404:
            key = keys[min(number, len(keys) - 1)]
            told = connection.cannot("delete", key)
            raise judged(status, text, {}, told, "storage.objects.delete")
    if len(answers) != len(keys):
        told = connection.cannot(*what)
        raise judged(500, b"", {}, f"{told}: {len(answers)} answers to {len(keys)} deletions")


def _answers(content_type: str, body: bytes) -> Iterator[tuple[int, bytes]]:
    document = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {content_type}\r\n\r\n".encode() + body
    )
    for part in document.walk():
        payload = part.get_payload(decode=True)
        if not isinstance(payload, bytes):
            continue
        found = _STATUS.match(payload.lstrip())
        if found is not None:
            yield int(found[1]), payload.partition(b"\r\n\r\n")[2]
