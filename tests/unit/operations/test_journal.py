"""The journal: whoever dies, wakes up late or writes behind another's back, it tells one story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.layout import journal_key, journal_prefix
from agent.archive.manifest import SliceRef
from agent.archive.objects import put_json
from agent.errors import IntegrityError, StorageUnavailable
from agent.operations.backup.journal import (
    MOST_AHEAD,
    ArchivedSlice,
    Begun,
    FinishedUnit,
    Journal,
    Progressed,
    read_journal,
)
from agent.storage.base import ObjectInfo
from agent.storage.memory import MemoryStorage
from tests.support.faulty_storage import FaultyStorage
from tests.unit.operations.repositories import REPLSET, moment

NAME = "b"
Hook = Callable[[], Awaitable[None]]


def _slice(start: int, end: int) -> ArchivedSlice:
    ref = SliceRef(
        key=f"slices/{start}-{end}",
        size_bytes=1,
        sha256="0",
        plain_bytes=1,
        count=1,
        start=moment(start),
        start_term=1,
        end=moment(end),
        end_term=1,
    )
    return ArchivedSlice(ref=ref)


def _begun(seconds: int = 0) -> Begun:
    return Begun(first_write=moment(seconds), catalogue_at=moment(seconds), catalogue=())


class _RacingStorage(FaultyStorage):
    """Something happens after one entry of a listing."""

    between: Hook | None = None
    after_entry: int = 0

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """A listing beside which others write."""
        position = 0
        async for item in super().list(prefix, after=after):
            yield item
            if self.between is not None and position == self.after_entry:
                await self.between()
            position += 1


@dataclass
class _Worker:
    """One agent that works on the part, or believes so."""

    epoch: int
    journal: Journal
    seen: Progressed
    durable: list[str] = field(default_factory=list)
    """Units of which it knows that they are in the journal."""

    @property
    def reached(self) -> int:
        return self.seen.slices[-1].ref.end.T if self.seen.slices else 0

    async def do(self, units: int, slices: int) -> None:
        """Finish the next units that it has not seen finished, archive, and journal both."""
        known = {str(unit.uuid) for unit in self.seen.units}
        names = [f"u{n}" for n in range(40) if f"u{n}" not in known][:units]
        for name in names:
            unit = FinishedUnit(uuid=name)
            self.seen.units.append(unit)
            self.journal.add(unit=unit)
        for _ in range(slices):
            archived = _slice(self.reached, self.reached + self.epoch)
            self.seen.slices.append(archived)
            self.journal.add(archived=archived)
        self.journal.close()
        await self.journal.run()
        self.durable += names


class _Part:
    """One part of a backup, with all who ever worked on it."""

    def __init__(self, storage: _RacingStorage) -> None:
        self.storage = storage
        self.workers: list[_Worker] = []
        self.epoch = 0

    async def take_over(self, between: Hook | None = None) -> _Worker:
        """What `Snapshot._begin` does."""
        self.epoch += 1
        self.storage.between = between
        seen = await read_journal(self.storage, NAME, REPLSET)
        self.storage.between = None
        _check(seen)
        journal = Journal(self.storage, NAME, REPLSET, self.epoch)
        if seen.begun is None:
            await journal.begin(_begun())
            seen.begun = _begun()
        else:
            await journal.resume(seen)
        worker = _Worker(self.epoch, journal, seen)
        self.workers.append(worker)
        return worker


def _check(seen: Progressed) -> None:
    """A consistent chain: no unit twice, no slice missing or twice, no entry without its begin."""
    units = [str(unit.uuid) for unit in seen.units]
    assert len(units) == len(set(units)), "a unit counts twice"
    reached = 0
    for archived in seen.slices:
        assert archived.ref.start == moment(reached), "slices do not link"
        reached = archived.ref.end.T
    assert seen.begun is not None or not (units or seen.slices or seen.keys)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take over"), st.booleans()),
        st.tuples(st.just("take over beside"), st.integers(0, 5), st.integers(0, 8)),
        st.tuples(st.just("work"), st.integers(0, 3), st.integers(0, 2)),
        st.tuples(st.just("late"), st.integers(0, 5)),
        st.tuples(st.just("crash"), st.booleans()),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=150)
@given(steps=_STEPS)
async def test_any_interleaving_of_workers_crashes_and_zombies_leaves_one_consistent_chain(
    steps: list[tuple[Any, ...]],
) -> None:
    storage = _RacingStorage(await MemoryStorage.open())
    part = _Part(storage)
    worker = await part.take_over()
    for step in steps:
        if step[0] == "take over":
            worker = await _taken_over(part, keep_known=step[1])
        elif step[0] == "take over beside":
            zombie = part.workers[step[1] % len(part.workers)]
            storage.after_entry = step[2]
            worker = await part.take_over(lambda z=zombie: z.do(1, 1))  # type: ignore[misc]
        elif step[0] == "work":
            await worker.do(step[1], step[2])
        elif step[0] == "late":
            await part.workers[step[1] % len(part.workers)].do(1, 1)
        else:
            error = StorageUnavailable("the connection broke")
            if step[1]:
                storage.fail_after("put", error)
            else:
                storage.fail("put", error)
            with pytest.raises(StorageUnavailable):
                await worker.do(1, 1)
            storage.heal()
            part.workers.remove(worker)
            worker = await _taken_over(part, keep_known=True)
    seen = await read_journal(storage, NAME, REPLSET)
    _check(seen)
    known = {str(unit.uuid) for unit in seen.units}
    assert set(worker.durable) <= known, "the newest worker's finished work is lost"


async def _taken_over(part: _Part, *, keep_known: bool) -> _Worker:
    """A takeover of a worker that stands still: all it knew to be durable is gone on from."""
    known = list(part.workers[-1].durable) if part.workers and keep_known else []
    newest = bool(part.workers) and part.workers[-1].epoch == part.epoch
    worker = await part.take_over()
    if newest:
        assert set(known) <= {str(unit.uuid) for unit in worker.seen.units}
    return worker


async def test_what_a_zombie_writes_after_the_takeover_counts_for_nothing() -> None:
    part = _Part(_RacingStorage(await MemoryStorage.open()))
    zombie = await part.take_over()
    await zombie.do(2, 1)
    owner = await part.take_over()
    await zombie.do(1, 1)
    await owner.do(1, 1)
    seen = await read_journal(part.storage, NAME, REPLSET)
    assert [unit.uuid for unit in seen.units] == ["u0", "u1", "u2"]
    assert [archived.ref.end.T for archived in seen.slices] == [1, 3]


async def test_an_entry_behind_a_hole_of_the_listing_is_not_gone_on_from() -> None:
    storage = _RacingStorage(await MemoryStorage.open())
    part = _Part(storage)
    zombie = await part.take_over()
    await zombie.do(1, 1)
    hidden = journal_key(NAME, REPLSET, 1, 1)
    await zombie.do(1, 1)
    assert isinstance(storage.inner, MemoryStorage)
    body = storage.inner.objects.bodies[hidden]
    await storage.delete([hidden])
    owner = await part.take_over()
    await storage.inner.put(hidden, _source(body))
    assert owner.seen.units == []
    _check(await read_journal(storage, NAME, REPLSET))


async def _source(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def test_no_journal_is_no_progress() -> None:
    seen = await read_journal(await MemoryStorage.open(), NAME, REPLSET)
    assert seen == Progressed()


async def test_entries_whose_beginning_is_not_there_count_for_nothing() -> None:
    storage = await MemoryStorage.open()
    await put_json(storage, journal_key(NAME, REPLSET, 1, 1), '{"units": [{"uuid": "u0"}]}')
    assert (await read_journal(storage, NAME, REPLSET)).units == []


async def test_an_accepted_entry_that_is_missing_is_named() -> None:
    part = _Part(_RacingStorage(await MemoryStorage.open()))
    first = await part.take_over()
    await first.do(1, 0)
    await part.take_over()
    lost = journal_key(NAME, REPLSET, 1, 1)
    await part.storage.delete([lost])
    with pytest.raises(IntegrityError, match=lost):
        await read_journal(part.storage, NAME, REPLSET)


@pytest.mark.parametrize("text", ["[]", "{", '{"units": 7}', '{"units": [{"sequence": "x"}]}'])
async def test_an_entry_that_is_none_is_named(text: str) -> None:
    storage = await MemoryStorage.open()
    key = journal_key(NAME, REPLSET, 1, 0)
    await put_json(storage, key, text)
    with pytest.raises(IntegrityError, match=key):
        await read_journal(storage, NAME, REPLSET)


class _GatedStorage(FaultyStorage):
    """A put waits until it is let through."""

    def __init__(self, inner: MemoryStorage) -> None:
        super().__init__(inner)
        self.arrived = asyncio.Event()
        self.gate = asyncio.Event()

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """A slow storage."""
        self.arrived.set()
        await self.gate.wait()
        return await super().put(key, source, size_hint=size_hint)


async def test_what_gathers_during_a_write_is_one_entry() -> None:
    storage = _GatedStorage(await MemoryStorage.open())
    journal = Journal(storage, NAME, REPLSET, 1)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(journal.run())
        journal.add(unit=FinishedUnit(uuid="u0"))
        await storage.arrived.wait()
        for name in ("u1", "u2", "u3"):
            journal.add(unit=FinishedUnit(uuid=name))
        journal.add(gone="u4")
        storage.gate.set()
        journal.close()
    keys = [item.key async for item in storage.list(journal_prefix(NAME, REPLSET))]
    assert keys == [journal_key(NAME, REPLSET, 1, 0), journal_key(NAME, REPLSET, 1, 1)]


async def test_whoever_reads_faster_than_the_journal_is_written_waits() -> None:
    storage = _GatedStorage(await MemoryStorage.open())
    journal = Journal(storage, NAME, REPLSET, 1)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(journal.run())
        journal.add(unit=FinishedUnit(uuid="first"))
        await storage.arrived.wait()
        for number in range(MOST_AHEAD):
            await journal.room()
            journal.add(unit=FinishedUnit(uuid=f"u{number}"))
        waiting = group.create_task(journal.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        storage.gate.set()
        await waiting
        journal.close()


async def test_bounds_sequences_and_objects_come_back() -> None:
    storage = await MemoryStorage.open()
    journal = Journal(storage, NAME, REPLSET, 7)
    await journal.begin(_begun(5))
    unit = FinishedUnit(uuid="u", sequence=(-1, 0, 3), min=None, max="AAAA")
    journal.add(unit=unit)
    journal.add(archived=_slice(5, 9))
    journal.add(gone="v")
    journal.close()
    await journal.run()
    seen = await read_journal(storage, NAME, REPLSET)
    assert seen.begun == _begun(5)
    assert seen.units == [unit]
    assert seen.slices == [_slice(5, 9)]
    assert seen.gone == {"v"}
