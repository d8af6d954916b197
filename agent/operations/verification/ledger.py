"""Which objects were read whole and found right, and when: so that unchanged ones are not read
again each time.

A key is written once, so an object that was right and still has its size can only have decayed or
been tampered with; how long that is believed is the reader's choice (`max_age_s`). Records lie on
the storage beside what they tell of, one a verification, and outlive the control database.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from agent.archive.layout import VERIFIED, verified_key
from agent.archive.objects import get_json, put_json
from agent.errors import IntegrityError, ObjectExists, PermissionDenied, StorageFull
from agent.storage.base import Storage

_KEEP_ALL: Final = timedelta(days=400)


class Ledger:
    """What earlier verifications proved, and what this one adds."""

    def __init__(self, known: dict[str, str]) -> None:
        self._known = known
        self._proven: dict[str, str] = {}

    @classmethod
    async def read(cls, storage: Storage, *, now: datetime, max_age: timedelta) -> Ledger:
        """What was proven since `now - max_age`. A record that cannot be read proves nothing;
        one older than anybody asks for is removed."""
        known: dict[str, str] = {}
        async for item in storage.list(VERIFIED):
            at = _moment_of(item.key)
            if at is None or now - at > _KEEP_ALL:
                with suppress(PermissionDenied):  # or locked: it harms nobody
                    await storage.delete([item.key])
            elif now - at <= max_age:
                try:
                    known |= json.loads(await get_json(storage, item.key))["objects"]
                except (IntegrityError, ValueError, KeyError):
                    continue
        return cls(known)

    def is_proven(self, key: str, sha256: str) -> bool:
        """Whether these very bytes were read recently enough, here or earlier."""
        return sha256 in (self._known.get(key), self._proven.get(key))

    def add(self, key: str, sha256: str) -> None:
        """It was read whole and found right."""
        self._proven[key] = sha256

    async def save(self, storage: Storage, name: str, part: int) -> str | None:
        """Write down what was added since the last time, as the record `part` of a verification:
        the epoch of who looks, so that each has its own. The same again changes nothing.

        Answers why it could not be, where the storage takes nothing: what can be read can be
        judged, and one that is full or read-only is what one wants to be sure of.
        """
        if not self._proven:
            return None
        try:
            await put_json(storage, verified_key(name, part), json.dumps({"objects": self._proven}))
        except ObjectExists:
            return None  # by this very worker, whose answer was lost
        except (PermissionDenied, StorageFull) as error:
            return str(error)
        self._known |= self._proven
        self._proven = {}
        return None


def _moment_of(key: str) -> datetime | None:
    name = key.removeprefix(VERIFIED).partition("/")[0]
    try:
        return datetime.fromisoformat(name[:20])
    except ValueError:
        return None
