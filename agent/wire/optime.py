"""OpTime: the cluster's logical time, and the one place that knows `bson.Timestamp`.

An OpTime is written as `{"T": seconds, "I": increment}` in the control database, in storage objects
and in JSON alike; documents of this shape sort like the OpTimes they hold. Where millions are
compared, the packed 64-bit integer `T << 32 | I` is used instead.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import total_ordering
from typing import Self

from bson import Timestamp

from agent.errors import ConfigError
from agent.wire.record import Record

_MAX = 0xFFFF_FFFF


@total_ordering
class OpTime(Record):
    """Seconds since 1970 and an increment within the second."""

    T: int
    I: int  # noqa: E741

    @classmethod
    def of(cls, timestamp: Timestamp) -> Self:
        """From the driver's type."""
        return cls(T=timestamp.time, I=timestamp.inc)

    @classmethod
    def unpack(cls, packed: int) -> Self:
        """From the 64-bit integer."""
        return cls(T=packed >> 32, I=packed & _MAX)

    @classmethod
    def end_of_second(cls, seconds: int) -> Self:
        """The last OpTime of a second, as wall-clock targets mean it."""
        return cls(T=seconds, I=_MAX)

    def pack(self) -> int:
        """As a 64-bit integer that sorts the same."""
        return self.T << 32 | self.I

    def timestamp(self) -> Timestamp:
        """As the driver's type."""
        return Timestamp(self.T, self.I)

    def wall(self) -> datetime:
        """The second it falls in, UTC."""
        return datetime.fromtimestamp(self.T, UTC)

    def in_words(self) -> str:
        """For people: `2026-11-22T03:08:36Z (1795316916,3)`. Of a wall-clock target, which means
        the end of its second, without the increment."""
        wall = self.wall().strftime("%Y-%m-%dT%H:%M:%SZ")
        return wall if self.I == _MAX else f"{wall} ({self})"

    def __lt__(self, other: OpTime) -> bool:
        return (self.T, self.I) < (other.T, other.I)

    def __str__(self) -> str:
        return f"{self.T},{self.I}"

    @property
    def key(self) -> str:
        """As part of an object key: fixed width, so that keys sort like OpTimes."""
        return f"{self.T:010d}-{self.I:010d}"


ZERO = OpTime(T=0, I=0)

_EXACT = re.compile(r"([0-9]{1,10}),([0-9]{1,10})", re.ASCII)
_SECONDS = re.compile(r"[0-9]{10}", re.ASCII)
"""Any second that a cluster has seen: a year, a compact date or milliseconds have other lengths."""


def parse_seconds(text: str) -> int | None:
    """Seconds since 1970 where that is what is written (ten digits), else None."""
    if _SECONDS.fullmatch(text) and int(text) <= _MAX:
        return int(text)
    return None


def parse_target(text: str) -> OpTime:
    """A moment as people write it: `T,I` (exact), or a second, of which the end is meant, as
    `YYYY-MM-DDTHH:MM:SS[Z]` (UTC) or in seconds since 1970. Raises `ConfigError`."""
    written = text.strip()
    exact = _EXACT.fullmatch(written)
    if exact and max(int(exact[1]), int(exact[2])) <= _MAX:
        return OpTime(T=int(exact[1]), I=int(exact[2]))
    if (seconds := parse_seconds(written)) is not None:
        return OpTime.end_of_second(seconds)
    try:
        wall = datetime.strptime(written.removesuffix("Z"), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a time",
            hint="write YYYY-MM-DDTHH:MM:SS (UTC), seconds since 1970, or T,I for an exact OpTime",
        ) from None
    return OpTime.end_of_second(int(wall.timestamp()))
