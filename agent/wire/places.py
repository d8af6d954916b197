"""Where backups and slices lie now: what the settings say, and what agents found there.

A backup belongs to the repository it was written to. When the settings of a profile are pointed
elsewhere, its backups are not there; they are listed all the same, without a profile, since the
repository may be given a profile again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from agent.wire.backups import Backup
from agent.wire.profiles import MAIN, places
from agent.wire.repositories import Found, Repositories, holders
from agent.wire.settings import Settings
from agent.wire.timelines import Run


@dataclass(frozen=True)
class Places:
    """The profiles of the settings and what is known of their repositories."""

    settings: Settings
    repositories: Repositories = field(default_factory=Repositories)

    @cached_property
    def _where(self) -> dict[str, str]:
        # Once, and not for each of a thousand backups.
        return places(self.settings)

    def profiles_of(self, backup: Backup) -> list[str]:
        """The profiles that lead to this backup; none where it is out of reach."""
        copies = {copy.repository_id: copy.profile for copy in backup.places}
        return holders(self.repositories, self._where, copies)

    def is_within_reach(self, backup: Backup) -> bool:
        """Whether any profile leads to it."""
        return bool(self.profiles_of(backup))

    def found(self, profile: str) -> Found | None:
        """What agents found where this profile points now; None where none has looked yet."""
        place = self._where.get(profile)
        return None if place is None else self.repositories.at(profile, place)

    def runs(self, runs: Iterable[Run]) -> tuple[Run, ...]:
        """Those whose slices lie in the repository that `main` leads to."""
        if MAIN not in self.repositories.found:
            return tuple(runs)
        found = self.found(MAIN)
        here = found.repository_id if found is not None else None
        return tuple(run for run in runs if run.repository_id in (None, here))
