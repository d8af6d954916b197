"""Coverage: which moments the archived oplog reaches, as pure functions over runs of slices.

A *run* is a stretch of slices of one replica set that link to each other. It covers `(start,
covered_until]`: `covered_until` may lie past the last slice where nothing worth storing happened
since. Runs of one replica set do not overlap in what they were written for, but they may touch; the
coverage of a cluster is the intersection over its replica sets. A *gap* says why a run does not
continue the one before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.optime import OpTime
from agent.wire.record import Record


class GapCause(StrEnum):
    """Why slices do not continue."""

    OVERRUN = "oplog rolled over"
    ROLLBACK = "rolled back"
    RESTORE = "restored"
    DISABLED = "slicing was off"
    RESHARDED = "a collection was resharded"
    SHARDS_CHANGED = "a shard was added"
    BROKEN = "slice missing"
    UNKNOWN = "not known any more"
    """Found on the storage, after the control database was lost."""


RESHAPING: Final = {
    "reshardCollection": GapCause.RESHARDED,
    "addShard": GapCause.SHARDS_CHANGED,
}
"""What slices of config servers name among their commands when the cluster was rebuilt in them: no
restore goes past that, because the backups before it do not have what it made."""


class Run(Record):
    """Linked slices of one replica set, as the control database caches them."""

    id: str = Field(alias="_id")
    """`<replset>/<start key>/<epoch>`."""
    schema_version: int = SCHEMA_VERSION
    replset: str
    repository_id: str | None = None
    """Where its slices lie; None in what an older version noted."""
    start: OpTime
    end: OpTime
    """End of the last stored slice; equals `start` before the first."""
    end_term: int | None = None
    covered_until: OpTime
    last_sha256: str | None = None
    last_key: str | None = None
    slices: int = 0
    size_bytes: int = 0
    """Of all slices there ever were; those that retention removed are counted below."""
    removed_slices: int = 0
    removed_bytes: int = 0
    epoch: int
    sealed: bool = False
    """Nothing is added any more: the replica set was restored since."""
    node: str | None = None
    """Who writes it."""
    error: str | None = None
    """Why slicing does not get on now."""
    updated_at: datetime | None = None

    def is_in(self, repository_id: str | None) -> bool:
        """Whether its slices lie in this repository, as far as is known."""
        return None in (self.repository_id, repository_id) or self.repository_id == repository_id

    @property
    def span(self) -> Span:
        """What it covers."""
        return Span(start=self.start, end=max(self.end, self.covered_until))

    @property
    def stored_bytes(self) -> int:
        """Size of the slices that are there."""
        return max(0, self.size_bytes - self.removed_bytes)

    def with_slice(self, key: str, sha256: str, end: OpTime, term: int, size_bytes: int) -> Run:
        """The run with one more slice at its end."""
        return self.model_copy(
            update={
                "end": end,
                "end_term": term,
                "covered_until": max(self.covered_until, end),
                "last_sha256": sha256,
                "last_key": key,
                "slices": self.slices + 1,
                "size_bytes": self.size_bytes + size_bytes,
                "error": None,
            }
        )


class Span(Record):
    """`(start, end]`."""

    start: OpTime
    end: OpTime

    def __contains__(self, moment: OpTime) -> bool:
        return self.start < moment <= self.end


class Gap(Record):
    """A hole in the coverage of one replica set: nothing in `(start, end]` can be restored to."""

    replset: str
    start: OpTime
    end: OpTime
    cause: GapCause
    message: str = ""
    at: datetime | None = None


def reshaped_by(commands: Iterable[str]) -> GapCause | None:
    """Why a slice with these commands ends what can be restored to; None where it does not."""
    return next((RESHAPING[name] for name in commands if name in RESHAPING), None)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans joined where they touch or overlap, ascending."""
    found: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, s.end)):
        if found and span.start <= found[-1].end:
            found[-1] = Span(start=found[-1].start, end=max(found[-1].end, span.end))
        elif span.start < span.end:
            found.append(span)
    return found


def intersection(first: Sequence[Span], second: Sequence[Span]) -> list[Span]:
    """What both cover; both ascending and disjoint."""
    found = []
    i = j = 0
    while i < len(first) and j < len(second):
        start = max(first[i].start, second[j].start)
        end = min(first[i].end, second[j].end)
        if start < end:
            found.append(Span(start=start, end=end))
        if first[i].end < second[j].end:
            i += 1
        else:
            j += 1
    return found


def coverage(runs: Iterable[Run], replsets: Iterable[str] = ()) -> list[Span]:
    """What each of these replica sets covers; without names, each that has runs."""
    by_replset: dict[str, list[Span]] = {name: [] for name in replsets}
    chosen = set(by_replset)
    for run in runs:
        if not chosen or run.replset in chosen:
            by_replset.setdefault(run.replset, []).append(run.span)
    # Runs are joined only where one begins exactly where another ends: both then hold every entry
    # around the seam. An overlap is joined as well, since slices hold the same committed entries.
    each = [merged(spans) for spans in by_replset.values()]
    if not each:
        return []
    common = each[0]
    for spans in each[1:]:
        common = intersection(common, spans)
    return common


@dataclass(frozen=True, slots=True)
class Base:
    """A backup to begin from: the moment it is consistent at, and what it holds."""

    moment: OpTime
    replsets: tuple[str, ...]


def restorable(runs: Sequence[Run], bases: Iterable[Base]) -> list[Span]:
    """What can be restored to with slices, `[start, end]`: from each base on as far as every
    replica set that it holds is covered without a hole. Ascending, joined where they overlap."""
    return merged(
        Span(start=base.moment, end=span.end)
        for base in bases
        for span in coverage(runs, base.replsets)
        if span.start <= base.moment <= span.end
    )


def without(spans: Sequence[Span], taken: Sequence[Span]) -> list[Span]:
    """What of the first is in none of the second; both ascending and disjoint."""
    found = []
    for span in spans:
        start = span.start
        for hole in taken:
            if hole.end <= start or hole.start >= span.end:
                continue
            if start < hole.start:
                found.append(Span(start=start, end=hole.start))
            start = max(start, hole.end)
        if start < span.end:
            found.append(Span(start=start, end=span.end))
    return found
