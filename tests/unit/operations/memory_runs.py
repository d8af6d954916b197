"""Runs and gaps in memory, as the control database would keep them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from agent.wire.timelines import Gap, Run


class MemoryRuns:
    """In the place of `agent.store.slice_runs.SliceRuns`."""

    def __init__(self, *known: Run) -> None:
        self.known = {run.id: run for run in known}
        self.recorded: list[Gap] = []

    async def runs(self, replset: str | None = None) -> list[Run]:
        """All, ascending."""
        found = [run for run in self.known.values() if replset in (None, run.replset)]
        return sorted(found, key=lambda run: run.start)

    async def save(self, run: Run) -> None:
        """Note one."""
        self.known[run.id] = run.model_copy(
            update={"updated_at": datetime(2026, 11, 22, tzinfo=UTC)}
        )

    async def restore(self, run: Run) -> None:
        """Note one as storage has it."""
        if run.sealed or run.id not in self.known:
            await self.save(run)

    async def forget(self, ids: Iterable[str]) -> None:
        """Drop these."""
        for one in ids:
            self.known.pop(one)

    async def record_gap(self, gap: Gap, *, is_better: bool = True) -> None:
        """Note a hole."""
        if is_better or all(known.start != gap.start for known in self.recorded):
            self.recorded.append(gap)
