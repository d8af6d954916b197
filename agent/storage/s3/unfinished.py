"""Uploads in parts that nobody will finish: their writer was killed.

No listing of objects shows them, and each part costs what an object costs. A rule of the bucket's
lifecycle removes them; where there is none, agents do when they try the storage. An upload counts
as left behind a day after it was begun, by the server's own clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any, Final

import structlog

from agent.errors import ConfigError, ObjectNotFound, Permanent, Transient
from agent.storage.answers import NoSuchUpload
from agent.storage.s3.connection import Connection

STALE_S: Final = 24 * 3600.0
"""No upload of one object takes so long."""

log = structlog.stdlib.get_logger()


async def abort_stale(connection: Connection, older_than_s: float) -> int:
    """Abort the uploads below our prefix that were begun so long ago; how many. A server or a key
    that does not allow it, or does not answer now, is left alone."""
    aborted = 0
    try:
        async for name, upload_id, age_s in _uploads(connection):
            if age_s < older_than_s:
                continue
            try:
                await connection.call(
                    "abort_multipart_upload", "write", None, Key=name, UploadId=upload_id
                )
            except (NoSuchUpload, ObjectNotFound):
                continue
            aborted += 1
    except (Permanent, Transient, ConfigError) as error:
        log.debug("storage.uploads_not_swept", address=connection.address, error=str(error))
    if aborted:
        log.info("storage.uploads_swept", address=connection.address, uploads=aborted)
    return aborted


async def _uploads(connection: Connection) -> AsyncIterator[tuple[str, str, float]]:
    """Name, id and age in seconds of each."""
    more: dict[str, Any] = {}
    while True:
        answer = await connection.call(
            "list_multipart_uploads", "list", None, Prefix=connection.name(""), **more
        )
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        if "date" not in headers:
            return  # how old they are cannot be said
        now = parsedate_to_datetime(headers["date"])
        for each in answer.get("Uploads", []):
            age_s = (now - each["Initiated"]).total_seconds()
            yield str(each["Key"]), str(each["UploadId"]), age_s
        if not answer.get("IsTruncated"):
            return
        more = {
            "KeyMarker": answer["NextKeyMarker"],
            "UploadIdMarker": answer["NextUploadIdMarker"],
        }
