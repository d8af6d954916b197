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


class ProvedShare(Record):
    """What a scratch server said of one replica set's share of a backup."""

    replset: str
    recovery_s: float
    """How long restoring it took."""
    collections: int
    documents: int
    hashes: dict[str, str]
    """`{database: dbHash}`, without what belongs to other shards; `{"*": SHA-256 of all}` where
    there are very many."""


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
    """How long the proving restore took; of a sharded cluster, whose replica sets are restored at
    the same time when it counts, that of the one that took longest."""
    proved_at: OpTime | None = None
    """The moment that was restored, inclusive."""
    collections: int = 0
    """How many the server validated."""
    documents: int = 0
    hashes: dict[str, str] = Field(default_factory=dict)
    """`{database: dbHash}` of what was restored; of a sharded cluster each share has its own."""
    shares: tuple[ProvedShare, ...] = ()
    """Of a sharded cluster: by replica set."""

    @property
    def is_sound(self) -> bool:
        """Nothing was found."""
        return self.harmed == 0
