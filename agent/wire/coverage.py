"""What the archived oplog of a cluster covers, and what of it can be restored to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.wire.backups import Backup
from agent.wire.optime import OpTime
from agent.wire.places import Places
from agent.wire.timelines import Gap, Run, Span, coverage, restorable
from agent.wire.wording import epoch


@dataclass(frozen=True, slots=True)
class Coverage:
    """The runs of all replica sets, the gaps between them, and the backups to begin from."""

    runs: tuple[Run, ...]
    gaps: tuple[Gap, ...]
    backups: tuple[Backup, ...]
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Why slicing of a replica set cannot begin."""

    @classmethod
    def of(
        cls,
        places: Places,
        runs: Iterable[Run],
        gaps: Iterable[Gap],
        backups: Iterable[Backup],
        troubles: Mapping[str, str] | None = None,
    ) -> Coverage:
        """What can be restored as the profiles are now: runs in other repositories than `main`'s
        and backups that no profile leads to do not count."""
        within = tuple(backup for backup in backups if places.is_within_reach(backup))
        return cls(places.runs(runs), tuple(gaps), within, dict(troubles or {}))

    def ranges(self, *, unbacked: bool = True) -> list[dict[str, Any]]:
        """Stretches that can be restored to, and (`unbacked`) those that lack a backup before
        them, ascending."""
        bases = [b.last_write for b in self.backups if not b.is_selective]
        found: list[dict[str, Any]] = []
        for span, base in restorable(coverage(self.runs), bases):
            if unbacked and base != span.start:
                until = span.end if base is None else base
                found.append(_range(Span(start=span.start, end=until), has_base=False))
            if base is not None and base < span.end:
                found.append(_range(Span(start=base, end=span.end), has_base=True))
        return found

    def gaps_found(self) -> list[dict[str, Any]]:
        """Holes, with their causes."""
        return [gap.to_json() for gap in self.gaps]

    def restorable_until(self) -> OpTime | None:
        """The latest moment that can be restored to with the slices."""
        ends = [OpTime.from_document(r["end_ts"]) for r in self.ranges(unbacked=False)]
        return max(ends, default=None)

    def lag_s(self, now: OpTime) -> float | None:
        """How far what can be restored to is behind: what a disaster now would lose at most, in
        seconds. Slices that no backup leads up to do not count."""
        until = self.restorable_until()
        return None if until is None else float(max(0, now.T - until.T))

    def errors(self) -> list[str]:
        """Why slicing does not get on, where it does not."""
        latest = {run.replset: run for run in self.runs}
        found = {replset: run.error for replset, run in latest.items() if run.error}
        return [f"{replset}: {why}" for replset, why in sorted({**found, **self.troubles}.items())]

    def chunks(self) -> dict[str, Any]:
        """The same under the names that PBM's users know."""
        return {"pitrChunks": self.ranges(), "size": sum(run.size_bytes for run in self.runs)}


def _range(span: Span, *, has_base: bool) -> dict[str, Any]:
    return {
        "range": {"start": epoch(span.start.wall()), "end": epoch(span.end.wall())},
        "start_ts": span.start.to_json(),
        "end_ts": span.end.to_json(),
        "noBaseSnapshot": not has_base,
    }
