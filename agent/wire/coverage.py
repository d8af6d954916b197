"""What the archived oplog of a cluster covers, and what of it can be restored to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.wire.backups import Backup
from agent.wire.optime import ZERO, OpTime
from agent.wire.places import Places
from agent.wire.timelines import Base, Gap, Run, Span, coverage, restorable, without
from agent.wire.wording import epoch

_BEHIND_S: Final = 60
"""What an idle replica set may be behind a busy one without anything being wrong."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The runs of all replica sets, the gaps between them, and the backups to begin from."""

    runs: tuple[Run, ...]
    gaps: tuple[Gap, ...]
    backups: tuple[Backup, ...]
    troubles: Mapping[str, str] = field(default_factory=dict)
    """Why slicing of a replica set cannot begin."""

    is_homeless: bool = False
    """Whether the oplog is to be archived, and there is no storage to archive it in."""

    replsets: tuple[str, ...] = ()
    """What the cluster consists of now; without it, what has runs counts."""

    @classmethod
    def of(
        cls,
        places: Places,
        runs: Iterable[Run],
        gaps: Iterable[Gap],
        backups: Iterable[Backup],
        troubles: Mapping[str, str] | None = None,
        *,
        replsets: Iterable[str] = (),
    ) -> Coverage:
        """What can be restored as the profiles are now: runs in other repositories than `main`'s
        and backups that no profile leads to do not count."""
        within = tuple(backup for backup in backups if places.is_within_reach(backup))
        settings = places.settings
        return cls(
            places.runs(runs),
            tuple(gaps),
            within,
            dict(troubles or {}),
            settings.pitr.enabled and settings.storage is None,
            tuple(replsets),
        )

    def ranges(self, *, unbacked: bool = True) -> list[dict[str, Any]]:
        """Stretches that can be restored to, and (`unbacked`) those that lack a backup before
        them, ascending."""
        backed = self._backed()
        found = [(span, True) for span in backed]
        if unbacked:
            found += [(span, False) for span in without(self.spans(), backed)]
        return [_range(span, has_base=has) for span, has in sorted(found, key=lambda f: f[0].end)]

    def spans(self) -> list[Span]:
        """What every replica set of the cluster covers, with a base or without."""
        return coverage(self.runs, self.replsets)

    def _backed(self) -> list[Span]:
        bases = [
            Base(b.last_write, tuple(part.replset for part in b.replsets))
            for b in self.backups
            if not b.is_selective
        ]
        return restorable(self.runs, bases)

    def behind(self) -> list[str]:
        """Which replica sets hold the coverage of a cluster back by more than a minute, and since
        when, in words."""
        ends = dict.fromkeys(self.replsets, ZERO)
        for run in self.runs:
            if not self.replsets or run.replset in ends:
                ends[run.replset] = max(ends.get(run.replset, ZERO), run.span.end)
        newest = max(ends.values(), default=ZERO)
        return [
            f"{name}: archived until {end.wall():%Y-%m-%dT%H:%M:%SZ}, {newest.T - end.T} s behind"
            if end > ZERO
            else f"{name}: nothing is archived"
            for name, end in sorted(ends.items())
            if newest.T - end.T > _BEHIND_S
        ]

    @property
    def needs_base(self) -> bool:
        """Whether the newest stretch has no backup that it could be replayed onto."""
        newest = self.spans()[-1:]
        bases = [b.last_write for b in self.backups if not b.is_selective]
        return bool(newest) and all(base < newest[0].start for base in bases)

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
        if self.is_homeless:
            return ["no storage is configured"]
        latest = {run.replset: run for run in self.runs}
        found = {replset: run.error for replset, run in latest.items() if run.error}
        return [f"{replset}: {why}" for replset, why in sorted({**found, **self.troubles}.items())]

    def chunks(self) -> dict[str, Any]:
        """The same under the names that PBM's users know."""
        return {"pitrChunks": self.ranges(), "size": sum(run.stored_bytes for run in self.runs)}


def _range(span: Span, *, has_base: bool) -> dict[str, Any]:
    return {
        "range": {"start": epoch(span.start.wall()), "end": epoch(span.end.wall())},
        "start_ts": span.start.to_json(),
        "end_ts": span.end.to_json(),
        "noBaseSnapshot": not has_base,
    }
