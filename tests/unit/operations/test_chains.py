"""Runs and gaps rebuilt from what storage holds, and from nothing else."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from agent.archive.codec import Compression
from agent.archive.layout import restore_key, slice_key, touched_key
from agent.archive.objects import put_framed
from agent.operations.chains import archived_replsets, rebuild, restore_runs
from agent.operations.verification.checking import Checker
from agent.operations.verification.ledger import Ledger
from agent.storage.base import Storage, put_bytes
from agent.storage.memory import MemoryStorage
from agent.store.slice_runs import SliceRuns
from agent.wire.timelines import Gap, GapCause, Run
from tests.unit.operations.memory_runs import MemoryRuns
from tests.unit.operations.repositories import (
    REPLSET,
    make_chunk,
    make_slice,
    moment,
    publish,
    write_journal,
)

RESTORED = "2026-11-22T05:00:00Z"
RESTORED_AT = 1795323600


async def _slice(
    storage: Storage, start: int, end: int, previous: str | None, epoch: int = 1
) -> str:
    frame = await Compression().frame(b"entries")
    header = {
        "kind": "slice",
        "start": moment(start).to_json(),
        "start_term": 1,
        "end": moment(end).to_json(),
        "end_term": 2,
        "count": 1,
        "previous_sha256": previous,
        "commands": [],
    }
    key = slice_key(REPLSET, moment(start), moment(end), 2, epoch)
    _, digest = await put_framed(storage, key, header, [frame])
    return digest


async def chain_of(
    storage: Storage, *ends: int, previous: str | None = None, epoch: int = 1
) -> str:
    digest = previous or ""
    for start, end in pairwise(ends):
        digest = await _slice(storage, start, end, digest or None, epoch)
    return digest


async def test_linked_slices_are_one_run_that_goes_on() -> None:
    storage = await MemoryStorage.open()
    last = await chain_of(storage, 10, 20, 30, 40)
    (run,) = (await rebuild(storage, REPLSET)).runs
    assert (run.start, run.end, run.end_term, run.slices) == (moment(10), moment(40), 2, 3)
    assert run.last_sha256 == last
    assert not run.sealed
    assert run.id == f"{REPLSET}/{moment(10).key}/1"
    assert await archived_replsets(storage) == [REPLSET]


async def test_a_missing_slice_is_a_gap_with_its_cause() -> None:
    storage = await MemoryStorage.open()
    await chain_of(storage, 10, 20, 30, 40, 50)
    await storage.delete([slice_key(REPLSET, moment(20), moment(30), 2, 1)])
    found = await rebuild(storage, REPLSET)
    assert [(r.start.T, r.end.T, r.sealed) for r in found.runs] == [(10, 20, True), (30, 50, False)]
    assert [(g.start.T, g.end.T, g.cause) for g in found.gaps] == [(20, 30, GapCause.BROKEN)]


async def test_a_slice_that_cannot_be_read_is_as_good_as_missing() -> None:
    storage = await MemoryStorage.open()
    await chain_of(storage, 10, 20, 30, 40)
    for key in (
        slice_key(REPLSET, moment(10), moment(20), 2, 1),
        slice_key(REPLSET, moment(30), moment(40), 2, 1),
    ):
        storage.objects.bodies[key] = b"harmed"
    (run,) = (await rebuild(storage, REPLSET)).runs
    assert (run.start, run.end) == (moment(20), moment(30))


async def test_a_run_begun_anew_is_a_gap_and_a_restore_seals_what_was_before() -> None:
    storage = await MemoryStorage.open()
    before = RESTORED_AT - 100
    await chain_of(storage, 10, 20)
    await chain_of(storage, 30, before, epoch=2)
    await put_bytes(storage, restore_key(RESTORED, REPLSET, 1, 0), b"{}")
    found = await rebuild(storage, REPLSET)
    assert [run.sealed for run in found.runs] == [True, True]
    assert [gap.cause for gap in found.gaps] == [GapCause.UNKNOWN]
    await chain_of(storage, RESTORED_AT + 5, RESTORED_AT + 9, epoch=3)
    found = await rebuild(storage, REPLSET)
    assert [run.sealed for run in found.runs] == [True, True, False]
    assert [gap.cause for gap in found.gaps] == [GapCause.UNKNOWN, GapCause.RESTORE]


async def test_a_restore_that_waited_in_line_seals_what_was_archived_meanwhile() -> None:
    storage = await MemoryStorage.open()
    await put_bytes(storage, restore_key(RESTORED, REPLSET, 1, 0), b"{}")
    await chain_of(storage, 10, RESTORED_AT + 100)
    assert [run.sealed for run in (await rebuild(storage, REPLSET)).runs] == [False]
    await put_bytes(storage, touched_key(RESTORED, "another", 1, moment(RESTORED_AT + 150)), b"{}")
    assert [run.sealed for run in (await rebuild(storage, REPLSET)).runs] == [False]
    await put_bytes(storage, touched_key(RESTORED, REPLSET, 1, moment(RESTORED_AT + 150)), b"{}")
    assert [run.sealed for run in (await rebuild(storage, REPLSET)).runs] == [True]


async def test_slices_of_backups_are_no_runs() -> None:
    """Neither those that a manifest or a journal names, nor what continues them unnoted."""
    storage = await MemoryStorage.open()
    archived = await make_slice(storage, 10, 30, 7)
    await publish(storage, "b", "op", [await make_chunk(storage, "op", 0)], [archived])
    noted = await make_slice(storage, 100, 110, 8)
    await write_journal(storage, "unpublished", 1, 0, slices=[noted])
    await _slice(storage, 110, 120, noted.sha256, 8)
    assert (await rebuild(storage, REPLSET)).runs == ()


async def test_slices_of_two_who_overlapped_make_one_run() -> None:
    storage = await MemoryStorage.open()
    first = await _slice(storage, 10, 20, None)
    await _slice(storage, 20, 35, first, 1)  # of a zombie: nothing continues it
    digest = await _slice(storage, 20, 30, first, 2)
    await _slice(storage, 30, 40, digest, 2)
    found = await rebuild(storage, REPLSET)
    assert [(run.start.T, run.end.T, run.slices) for run in found.runs] == [(10, 40, 3)]
    assert not found.gaps


async def test_what_storage_says_is_noted_and_what_it_lacks_is_forgotten() -> None:
    storage = await MemoryStorage.open()
    await chain_of(storage, 10, 20)
    await chain_of(storage, 30, 40, epoch=2)
    runs = MemoryRuns(_run(1, 5, last_key=slice_key(REPLSET, moment(1), moment(5), 2, 1)))
    store = cast(SliceRuns, runs)
    found = await restore_runs(store, storage, REPLSET, None, check=lambda: None)
    assert [run.start.T for run in found] == [10, 30]
    assert [run.start.T for run in await runs.runs()] == [10, 30]
    assert [gap.start.T for gap in runs.recorded] == [20]
    again = await restore_runs(store, storage, REPLSET, None, check=lambda: None)
    assert [run.id for run in again] == [run.id for run in found]
    assert len(runs.recorded) == 1


async def test_a_run_that_is_being_written_stays_as_it_is() -> None:
    storage = await MemoryStorage.open()
    await chain_of(storage, 10, 20)
    await chain_of(storage, 30, 40, 50, epoch=2)
    runs = MemoryRuns()
    live = _run(30, 60, epoch=2)
    await runs.save(live)
    await restore_runs(cast(SliceRuns, runs), storage, REPLSET, None, check=lambda: None)
    before, after = await runs.runs()
    assert (before.start.T, before.sealed) == (10, True)
    assert (after.end.T, after.epoch) == (60, 2)


async def test_how_far_a_run_went_on_without_slices_stays_known() -> None:
    """Nothing worth storing happened after its last slice; then a restore ended it."""
    storage = await MemoryStorage.open()
    await chain_of(storage, 10, 20)
    await chain_of(storage, 30, 40, epoch=2)
    ended = _run(10, 20, last_key=slice_key(REPLSET, moment(10), moment(20), 2, 1)).model_copy(
        update={"covered_until": moment(27), "sealed": True}
    )
    runs = MemoryRuns(ended)
    between = {"replset": REPLSET, "start": moment(27), "end": moment(30)}
    await runs.record_gap(Gap(**between, cause=GapCause.RESTORE))
    await restore_runs(cast(SliceRuns, runs), storage, REPLSET, None, check=lambda: None)
    first, second = await runs.runs()
    assert (first.span.end, second.span.end) == (moment(27), moment(40))
    assert [(gap.start, gap.cause) for gap in runs.recorded] == [(moment(27), GapCause.RESTORE)]


def _run(start: int, end: int, epoch: int = 1, last_key: str | None = None) -> Run:
    return Run(
        id=f"{REPLSET}/{moment(start).key}/{epoch}",
        replset=REPLSET,
        start=moment(start),
        end=moment(end),
        covered_until=moment(end),
        epoch=epoch,
        last_key=last_key,
    )


async def test_a_first_slice_that_nobody_noted_harms_nothing_beside_it() -> None:
    """Its writer died after storing it; the next one began there anew."""
    storage = await MemoryStorage.open()
    await chain_of(storage, 10, 15, epoch=1)
    await chain_of(storage, 10, 20, 30, epoch=2)
    (run,) = (await rebuild(storage, REPLSET)).runs
    seen: list[int] = []
    checker = Checker(storage, Ledger({}), deep=True, on_step=seen.append)
    tally, lost = await checker.archived(REPLSET, [run])
    assert (tally.problems, lost) == ({}, [])
    assert tally.objects == run.slices == len(seen) == 2
    assert all(seen)
