"""Three simulated years of backups, failures and half-done deletions, swept every other day: what a
published backup needs is always there, and nothing that no backup needs outlives its grace."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final, cast

import structlog

from agent.archive.layout import backup_key
from agent.errors import NotFound
from agent.operations.context import LeadContext
from agent.operations.deletion import delete_backup
from agent.operations.inventory import read_backup, referenced_by
from agent.operations.removal.sweep import Sweep, Swept
from agent.storage.memory import MemoryStorage
from agent.wire.operations import HistoryEntry, Kind, Operation, State
from agent.wire.schedule_state import Orphans
from tests.unit.operations.repositories import keys_of, make_chunk, publish, write_journal

DAY: Final = timedelta(days=1)
GRACE: Final = DAY
START: Final = datetime(2026, 1, 1, 2, tzinfo=UTC)
STEP: Final = 2 * DAY
STEPS: Final = 3 * 366 // 2
KEPT: Final = 4


@dataclass
class Years:
    """A repository, the memory of its cluster, and a sweep now and then."""

    storage: MemoryStorage
    chance: random.Random
    now: datetime = START
    operations: dict[str, Operation] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    known: dict[str, Orphans] = field(default_factory=dict)
    orphans: dict[str, datetime] = field(default_factory=dict)
    """Since when nothing needs it, and nobody works on it."""
    made: int = 0
    removed: int = 0

    async def get(self, op_id: str) -> Operation:
        """As the operation log."""
        if op_id not in self.operations:
            raise NotFound(f"no operation {op_id}")
        return self.operations[op_id]

    async def find(self, name: str, kind: Kind) -> Operation | None:
        """As the operation log."""
        found = (op for op in self.operations.values() if (op.name, op.kind) == (name, kind))
        return next(found, None)

    def lead(self) -> LeadContext:
        """Whoever sweeps."""
        policy = SimpleNamespace(sweep_grace=GRACE.total_seconds())
        return LeadContext(
            cast(Any, SimpleNamespace(operations=self, catalog=self)),
            cast(Any, SimpleNamespace(policy=policy)),
            cast(Any, SimpleNamespace(check=lambda: None)),
            structlog.stdlib.get_logger(),
        )

    async def backups(self) -> list[Any]:
        """As the catalogue lists them."""
        return [SimpleNamespace(id=name) for name in self.published]

    async def back_up(self, fate: str) -> None:
        """One that is published, fails, runs on, dies while it publishes, or is forgotten."""
        self.made += 1
        op_id, name = f"{self.made:024x}", f"{self.now:%Y-%m-%dT%H:%M:%SZ}"
        chunks = [await make_chunk(self.storage, op_id, number) for number in range(2)]
        if fate != "forgotten without a journal":
            await write_journal(self.storage, name, 1, 1, chunks[:1])
        history = [HistoryEntry(at=self.now, state="running")]
        state = {"published": State.DONE, "runs on": State.RUNNING}.get(fate, State.FAILED)
        if fate in ("published", "dies publishing"):
            history.append(HistoryEntry(at=self.now, state=State.PUBLISHING))
        if fate == "published":
            await publish(self.storage, name, op_id, chunks)
            self.published.append(name)
        if not fate.startswith("forgotten"):
            self.operations[op_id] = Operation(
                id=op_id,
                kind=Kind.BACKUP,
                name=name,
                state=state,
                requested_at=self.now,
                finished_at=None if state is State.RUNNING else self.now,
                history=tuple(history),
            )

    async def retain(self) -> None:
        """The oldest go; now and then the agent dies in the middle and nobody takes it up."""
        while len(self.published) > KEPT:
            name = self.published.pop(0)
            if self.chance.random() < 0.2:
                await self.storage.delete([backup_key(name)])
            else:
                self.removed += await delete_backup(self.storage, name)

    def end_runs(self) -> None:
        """What ran at the last step fails now; old operations are forgotten."""
        for op_id, op in list(self.operations.items()):
            if op.state is State.RUNNING and op.requested_at < self.now:
                ended = {"state": State.FAILED, "finished_at": self.now}
                self.operations[op_id] = op.model_copy(update=ended)
            elif self.now - op.requested_at > 30 * DAY:
                del self.operations[op_id]

    async def sweep(self) -> None:
        """As the scheduler asks for it."""
        swept = Swept()
        await Sweep(self.lead(), self.storage, now=self.now, known=self.known).run(swept)
        self.known = dict(swept.left)
        self.removed += swept.objects

    async def check(self) -> None:
        """Every promise, after a sweep."""
        there = set(await keys_of(self.storage))
        needed = {backup_key(name) for name in self.published}
        needed |= await referenced_by(self.storage, self.published)
        for name in self.published:
            backup = await read_backup(self.storage, name)
            assert backup is not None
            needed |= {share.manifest_key for share in backup.replsets}
        assert needed <= there, f"{sorted(needed - there)[:3]} is gone and still needed"
        running = {op.id for op in self.operations.values() if not op.state.is_terminal}
        at_work = {key for key in there - needed if any(op_id in key for op_id in running)}
        at_work |= {
            key
            for key in there - needed
            for op in self.operations.values()
            if op.id in running and f"/{op.name}/" in key
        }
        loose = there - needed - at_work
        self.orphans = {key: self.orphans.get(key, self.now) for key in loose}
        for key, since in self.orphans.items():
            # Seen at the first sweep, removed by the first one after its grace.
            assert self.now - since <= GRACE + STEP, f"{key} is needed by nobody since {since}"


FATES: Final = (
    *(["published"] * 6),
    "fails",
    "runs on",
    "dies publishing",
    "forgotten",
    "forgotten without a journal",
)


async def test_nothing_that_is_needed_goes_and_nothing_else_stays() -> None:
    years = Years(await MemoryStorage.open(), random.Random(1))
    for _ in range(STEPS):
        years.now += STEP
        years.end_runs()
        await years.back_up(years.chance.choice(FATES))
        await years.retain()
        await years.sweep()
        await years.check()
    assert years.now - START > timedelta(days=3 * 365)
    assert years.removed > 500
    assert len(years.published) == KEPT
