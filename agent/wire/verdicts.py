"""What verifying a backup found, as the catalogue keeps it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from agent.wire.optime import OpTime
from agent.wire.record import Record

MAX_PROBLEMS: Final = 20
"""Named one by one in a verdict; the rest is counted."""


class Level(StrEnum):
    """How far was looked."""

    PRESENT = "present"
    """Every object is there and has its size."""
    READ = "read"
    """Every object was read, and its digest is the one that was written."""
    PROVED = "proved"
    """The backup was restored into a scratch mongod, which found nothing wrong."""


class Verdict(Record):
    """One verification of one backup; `at` is the server's time."""

    level: Level
    at: datetime | None = None
    objects: int = 0
    bytes_read: int = 0
    problems: tuple[str, ...] = ()
    """What is harmed, at most `MAX_PROBLEMS` sentences."""
    harmed: int = 0
    """How many objects or collections are not as they were written."""
    recovery_s: float | None = None
    """How long the proving restore took."""
    proved_at: OpTime | None = None
    """The moment that was restored, inclusive."""
    collections: int = 0
    """How many the server validated."""
    documents: int = 0
    hashes: dict[str, str] = Field(default_factory=dict)
    """`{database: dbHash}` of what was restored."""

    @property
    def is_sound(self) -> bool:
        """Nothing was found."""
        return self.harmed == 0
