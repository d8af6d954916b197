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

_EXACT = re.compile(r"(\d{1,10}),(\d{1,10})")


def parse_target(text: str) -> OpTime:
    """A moment as people write it: `T,I` (exact) or `YYYY-MM-DDTHH:MM:SS[Z]` (UTC, the end of
    that second). Raises `ConfigError`."""
    exact = _EXACT.fullmatch(text.strip())
    if exact:
        return OpTime(T=int(exact[1]), I=int(exact[2]))
    try:
        written = text.strip().removesuffix("Z")
        wall = datetime.strptime(written, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a time",
            hint="write YYYY-MM-DDTHH:MM:SS (UTC), or T,I for an exact OpTime",
        ) from None
    return OpTime.end_of_second(int(wall.timestamp()))
