"""Which operations on a collection the base already holds.

Each chunk is exact as of the OpTime at which it was read, so an operation visible by then is in it.
Most collections were read at one OpTime, and the question is a comparison of integers. Where ranges
of `_id` were read at several (a backup that outlasted the server's history), operations between the
earliest and the latest are looked up by their `_id`.

Chunks of collections that the server lets nobody read at an OpTime (*fuzzy* ones) and collections
whose `_id`s only the server can order are applied to again from the earliest OpTime on; replay is
idempotent, only that updates may then meet documents that are gone already.
"""

from __future__ import annotations

import base64
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.archive.manifest import CollectionEntry, Segment
from agent.mongo.bsonkey import Key, id_key
from agent.wire.optime import OpTime

BEFORE_EVERYTHING: Final[Key] = (-2,)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Operations at or before `floor` are in the base, those after `ceiling` are not."""

    floor: int
    ceiling: int
    is_lenient: bool
    """Operations may be applied to documents that are newer than they, or gone."""
    _starts: tuple[Key, ...] = ()
    _read_at: tuple[int, ...] = ()

    def holds(self, key: Key, visible_at: int) -> bool:
        """Whether the base holds what happened to the document at `visible_at`, for an OpTime
        between `floor` and `ceiling`."""
        position = bisect_right(self._starts, key) - 1
        return visible_at <= self._read_at[position]


NOTHING: Final = Coverage(floor=0, ceiling=0, is_lenient=False)
"""Of a collection that was created after the base."""


def coverage_of(
    entry: CollectionEntry, segments: Iterable[Segment], catalogue_at: OpTime
) -> Coverage:
    """What the chunks of one collection cover."""
    found = list(segments)
    read_at = {segment.read_at.pack() for segment in found}
    if not found:
        # Nothing was there to be read; at which OpTime that was seen is not told.
        return Coverage(catalogue_at.pack(), catalogue_at.pack(), is_lenient=True)
    low, high = min(read_at), max(read_at)
    if any(segment.is_fuzzy for segment in found):
        return Coverage(low, low, is_lenient=True)
    if low == high:
        return Coverage(low, high, is_lenient=not _is_whole(found))
    if "collation" in entry.options:
        return Coverage(low, low, is_lenient=True)
    return _by_range(found, low, high)


def _is_whole(segments: list[Segment]) -> bool:
    """Whether the ranges of the segments adjoin from one open end to the other. An empty range
    leaves no segment; it may have been read at another OpTime."""
    bounds = {segment.min for segment in segments} ^ {segment.max for segment in segments}
    return not bounds


def _by_range(segments: list[Segment], low: int, high: int) -> Coverage:
    ranges = sorted(
        {(_key(s.min), _key(s.max) if s.max else None, s.read_at.pack()) for s in segments},
        key=lambda found: found[0],
    )
    starts: list[Key] = []
    read_at: list[int] = []
    end: Key | None = BEFORE_EVERYTHING
    is_whole = True
    for minimum, maximum, at in ranges:
        if minimum != end:
            is_whole = False
            starts.append(end if end is not None else minimum)
            read_at.append(low)
        starts.append(minimum)
        read_at.append(at)
        end = maximum
    if end is not None:
        is_whole = False
        starts.append(end)
        read_at.append(low)
    return Coverage(low, high, not is_whole, tuple(starts), tuple(read_at))


def _key(bound: str | None) -> Key:
    return BEFORE_EVERYTHING if bound is None else id_key(base64.b64decode(bound))
