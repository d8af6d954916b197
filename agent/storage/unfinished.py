"""Uploads in parts that nobody will finish: their writer was killed.

No listing of objects shows them, and each part costs what an object costs. A rule of the bucket's
lifecycle removes them; where there is none, agents do when they try the storage. An upload counts
as left behind a day after it was begun, by the server's own clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

import structlog

from agent.errors import ConfigError, ObjectNotFound, Permanent, Transient
from agent.storage.answers import NoSuchUpload

STALE_S: Final = 24 * 3600.0
"""No upload of one object takes so long."""

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload as a listing of them has it."""

    name: str
    """Of the object, in the store."""
    upload_id: str
    age_s: float


class Uploads(Protocol):
    """The uploads of a store that keeps them until somebody ends them."""

    def under_way(self) -> AsyncIterator[Unfinished]:
        """Those below our prefix."""

    async def abort(self, upload: Unfinished) -> None:
        """Raises `NoSuchUpload` where it has ended since."""


async def abort_stale(address: str, uploads: Uploads, older_than_s: float) -> int:
    """Abort those that were begun so long ago; how many. A server or a key that does not allow it,
    or does not answer now, is left alone."""
    aborted = 0
    try:
        async for upload in uploads.under_way():
            if upload.age_s < older_than_s:
                continue
            try:
                await uploads.abort(upload)
            except (NoSuchUpload, ObjectNotFound):
                continue
            aborted += 1
    except (Permanent, Transient, ConfigError) as error:
        log.debug("storage.uploads_not_swept", address=address, error=str(error))
    if aborted:
        log.info("storage.uploads_swept", address=address, uploads=aborted)
    return aborted


def age_s(begun: datetime, date: str | None) -> float:
    """How old something is by the `Date` of the answer that tells of it, in seconds; 0 where the
    server does not say what time it is."""
    return 0.0 if date is None else (parsedate_to_datetime(date) - begun).total_seconds()
