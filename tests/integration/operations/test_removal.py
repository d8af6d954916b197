"""Deletion, cleanup, holds and the sweep on a real control database and a directory: what goes,
what stays, and that a crash anywhere is followed by the same end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent import faults
from agent.errors import Conflict, IntegrityError, NotFound, Refused, StorageUnavailable
from agent.operations.removal.holds import with_hold
from agent.operations.removal.plan import check_not_doomed
from agent.wire.operations import Kind, State
from agent.wire.optime import OpTime
from agent.wire.specs import (
    CleanupSpec,
    DeleteBackupSpec,
    DeletePitrSpec,
    HoldSpec,
    RestoreSpec,
)
from agent.wire.timelines import Gap, GapCause
from tests.integration.operations.removing import DAY_S, Bench, open_bench, settings_of
from tests.support.mongod import ReplicaSet

POINTS = ("delete.planned", "delete.withdrawn", "delete.slices_trimmed", "delete.object_deleted")


@pytest_asyncio.fixture
async def bench(one_node: ReplicaSet, tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(one_node, tmp_path) as found:
        yield found


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


def at(bench: Bench, ago_s: int) -> OpTime:
    return OpTime(T=bench.now - ago_s, I=0)


async def stocked(bench: Bench) -> None:
    """An hour of slices, five minutes each, and three backups on them."""
    await bench.archive(bench.now - 3600, bench.now, 300)
    for name, ago_s in (("b1", 3300), ("b2", 1700), ("b3", 400)):
        await bench.back_up(name, bench.now - ago_s)


async def test_slices_go_as_far_as_no_later_moment_needs_them(bench: Bench) -> None:
    await stocked(bench)
    result = await bench.do(Kind.DELETE_PITR, DeletePitrSpec(older_than=at(bench, 600)))
    # b2 ends at -1700: the slice with that moment ends at -1500 and begins at -1800.
    assert bench.slice_ends(await bench.keys())[0] == -1500
    assert result["slices"]["objects"] == 6
    assert result["slices"]["reason"] == "they carry on from b2, the base of PITR"
    (run,) = await bench.runs.runs()
    assert bench.now - 1800 == run.start.T
    assert (run.slices, run.removed_slices) == (12, 6)
    assert len(await bench.catalog.backups()) == 3


async def test_a_slicer_that_writes_on_does_not_undo_it(bench: Bench) -> None:
    await stocked(bench)
    (before,) = await bench.runs.runs()
    await bench.do(Kind.DELETE_PITR, DeletePitrSpec(older_than=at(bench, 600)))
    (trimmed,) = await bench.runs.runs()
    moved = before.model_copy(update={"covered_until": OpTime(T=bench.now + 9, I=1)})
    await bench.runs.save(moved)
    (after,) = await bench.runs.runs()
    assert after.start == trimmed.start
    assert after.removed_slices == 6
    assert bench.now + 9 == after.covered_until.T


async def test_all_of_it_goes_only_where_pitr_is_off(bench: Bench) -> None:
    await stocked(bench)
    await bench.do(Kind.DELETE_PITR, DeletePitrSpec())
    assert bench.slice_ends(await bench.keys()) == [-300, 0], "b3 is carried on from"
    bench.settings = settings_of(bench.path, pitr=False)
    await bench.do(Kind.DELETE_PITR, DeletePitrSpec())
    assert bench.slice_ends(await bench.keys()) == []
    assert await bench.runs.runs() == []


async def test_slices_that_a_kept_backup_names_stay(bench: Bench) -> None:
    await stocked(bench)
    own = (bench.now - 3500, bench.now - 3490)
    await bench.back_up("b0", bench.now - 3490, slices=(own,), hold="audit")
    result = await bench.do(Kind.CLEANUP, CleanupSpec(older_than=at(bench, 600)))
    assert bench.slice_ends(await bench.keys())[0] == -3490
    assert result["slices"]["kept_for_backups"] == 1
    assert [b.id for b in await bench.catalog.backups()] == ["b0", "b2", "b3"]
    assert {item["name"]: item["reason"] for item in result["kept"]}["b0"] == "on hold: audit"


async def test_old_runs_and_their_gaps_are_forgotten(bench: Bench) -> None:
    old = await bench.archive(bench.now - 9000, bench.now - 8000, 500, sealed=True)
    gap = Gap(
        replset="rs0", start=old.end, end=OpTime(T=bench.now - 3600, I=1), cause=GapCause.RESTORE
    )
    await bench.runs.record_gap(gap)
    await stocked(bench)
    await bench.do(Kind.DELETE_PITR, DeletePitrSpec(older_than=at(bench, 600)))
    assert len(await bench.runs.runs()) == 1
    assert await bench.runs.gaps() == []


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("hit", [1, 2])
async def test_a_crash_anywhere_is_followed_by_the_same_end(
    bench: Bench, point: str, hit: int
) -> None:
    await stocked(bench)
    operation = await bench.ask(Kind.CLEANUP, CleanupSpec(older_than=at(bench, 300)))
    faults.arm(f"{point}=transient@{hit}")
    failed = False
    try:
        await bench.lead_on(operation)
    except StorageUnavailable:
        failed = True
    assert failed or (point in ("delete.planned", "delete.slices_trimmed") and hit == 2)
    faults.arm("")
    await bench.finish(operation)
    assert [b.id for b in await bench.catalog.backups()] == ["b3"]
    keys = await bench.keys()
    assert bench.slice_ends(keys) == [-300, 0]
    assert {key.split("/")[1] for key in keys if key.startswith("backups/")} == {"b3"}
    assert len([key for key in keys if key.startswith("chunks/")]) == 2
    (run,) = await bench.runs.runs()
    assert (run.start.T, run.removed_slices) == (bench.now - 600, 10)


async def test_what_a_restore_reads_stays_and_what_is_doomed_is_not_begun(bench: Bench) -> None:
    await stocked(bench)
    restore = await bench.ask(
        Kind.RESTORE, RestoreSpec(backup="b1", time=OpTime(T=bench.now - 600, I=1))
    )
    with pytest.raises(Conflict, match=r"restore .* is reading it"):
        await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1",)))
    cleanup = await bench.ask(Kind.CLEANUP, CleanupSpec(older_than=at(bench, 300)))
    await bench.finish(cleanup)
    assert [b.id for b in await bench.catalog.backups()] == ["b1", "b3"]
    assert bench.slice_ends(await bench.keys())[0] == -3300 + 300
    await bench.end(restore, State.DONE)
    # The other way round: the plan of a deletion that is not over refuses readers.
    active = await bench.operations.active()
    assert [op.id for op in active] == [cleanup.id] or cleanup.id in {op.id for op in active}
    with pytest.raises(Conflict, match="is deleting what this needs"):
        check_not_doomed(active, backup="b2", slices_after=None)
    check_not_doomed(active, backup="b3", slices_after=OpTime(T=bench.now - 400, I=1))


async def test_a_restore_that_begins_while_the_plan_is_made_is_spared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stocked(bench)
    begun: list[Any] = []
    from agent.operations.removal import kinds

    async def begin(name: str) -> None:
        if name == "delete.planned" and not begun:
            begun.append(await bench.ask(Kind.RESTORE, RestoreSpec(backup="b1")))

    monkeypatch.setattr(kinds, "fault_point", begin)
    result = await bench.do(Kind.CLEANUP, CleanupSpec(older_than=at(bench, 300)))
    assert begun
    assert [item["name"] for item in result["deleted"]] == ["b2"]


async def test_by_name_what_must_stay_refuses_the_whole(bench: Bench) -> None:
    await stocked(bench)
    await bench.back_up("held", bench.now - 100, hold="audit", ns=("shop.*",))
    with pytest.raises(Refused, match="held stays: on hold: audit"):
        await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1", "held")))
    with pytest.raises(NotFound):
        await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b9",)))
    with pytest.raises(Refused, match="PITR needs backup"):
        await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1", "b2", "b3")))
    assert len(await bench.catalog.backups()) == 4
    await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1",)))
    assert [b.id for b in await bench.catalog.backups()] == ["b2", "b3", "held"]


async def test_the_policy_keeps_its_window_and_counts(bench: Bench) -> None:
    await stocked(bench)
    bench.settings = settings_of(bench.path, "{pitrWindow: 20m, keep: {last: 1}}")
    result = await bench.do(Kind.CLEANUP, CleanupSpec(by_policy=True))
    assert [item["name"] for item in result["deleted"]] == ["b1"]
    assert bench.slice_ends(await bench.keys())[0] == -1500
    again = await bench.do(Kind.CLEANUP, CleanupSpec(by_policy=True))
    assert (again["objects"], again["deleted"]) == (0, [])


async def test_a_backup_under_way_keeps_the_slices_of_its_time(bench: Bench) -> None:
    await stocked(bench)
    backup = await bench.operations.submit(Kind.BACKUP, {}, requested_by="test")
    await bench.operations._collection.update_one(
        {"_id": backup.id}, [{"$set": {"requested_at": {"$subtract": ["$$NOW", 2400_000]}}}]
    )
    result = await bench.do(Kind.DELETE_PITR, DeletePitrSpec(older_than=at(bench, 600)))
    assert result["slices"]["reason"] == f"backup {backup.name} is under way"
    assert bench.slice_ends(await bench.keys())[0] in (-2700, -2400), "five minutes before it"


async def test_a_hold_outlives_the_control_database(bench: Bench) -> None:
    made = await bench.back_up("b1", bench.now - 100)
    await bench.do(Kind.HOLD, HoldSpec(name="b1", hold="case 7"))
    await bench.do(Kind.HOLD, HoldSpec(name="b1", hold="case 7"))
    assert (await bench.catalog.backup("b1")).hold == "case 7"
    assert (await with_hold(bench.storage, made)).hold == "case 7"
    assert len(await bench.keys("backups/b1/hold-")) == 1
    with pytest.raises(Refused, match="case 7"):
        await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1",)))
    operation = await bench.ask(Kind.HOLD, HoldSpec(name="b1"))
    faults.arm("hold.written=transient")
    with pytest.raises(StorageUnavailable):
        await bench.finish(operation)
    await bench.finish(operation)
    assert (await bench.catalog.backup("b1")).hold is None
    assert (await with_hold(bench.storage, made)).hold is None
    await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1",)))
    assert await bench.keys() == []


async def sweep(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = (await bench.do(Kind.CLEANUP, CleanupSpec()))["swept"]
    return found


async def test_what_a_failed_backup_left_goes_a_minute_later(bench: Bench) -> None:
    kept = await bench.back_up("kept", bench.now - 100)
    await bench.archive(bench.now - 60, bench.now + 60, 20)
    before = await bench.keys()
    failed = await bench.operations.submit(Kind.BACKUP, {}, requested_by="test")
    await bench.leave_behind(failed)
    assert len(await bench.keys()) == len(before) + 5
    assert (await sweep(bench))["objects"] == 0, "it is not over"
    await bench.end(failed, State.FAILED, ago_s=30)
    early = await sweep(bench)
    assert early["objects"] == 0
    assert set(early["waiting"]) == {f"backup {failed.name}", f"operation {failed.id}"}
    await bench.end(failed, State.FAILED, ago_s=90)
    assert (await sweep(bench))["objects"] == 5
    assert await bench.keys() == before
    assert (await bench.schedule.read()).orphans == {}
    assert (await bench.catalog.backup(kept.id)).id == "kept"


async def test_a_sweep_that_is_cut_short_is_taken_up_again(bench: Bench) -> None:
    failed = await bench.operations.submit(Kind.BACKUP, {}, requested_by="test")
    await bench.leave_behind(failed)
    await bench.end(failed, State.CANCELLED, ago_s=90)
    for point in ("sweep.found", "delete.object_deleted@2", "delete.object_deleted@3"):
        name, _, hit = point.partition("@")
        faults.arm(f"{name}=transient@{hit or 1}")
        with pytest.raises(StorageUnavailable):
            await bench.do(Kind.CLEANUP, CleanupSpec())
    faults.arm("")
    await sweep(bench)
    assert await bench.keys() == []


async def test_one_that_might_still_publish_has_the_whole_grace(bench: Bench) -> None:
    failed = await bench.operations.submit(Kind.BACKUP, {}, requested_by="test")
    await bench.leave_behind(failed)
    await bench.operations._collection.update_one(
        {"_id": failed.id},
        [{"$set": {"history": [{"at": "$$NOW", "state": "publishing", "epoch": 1}]}}],
    )
    await bench.end(failed, State.FAILED, ago_s=DAY_S - 60)
    assert (await sweep(bench))["objects"] == 0
    await bench.end(failed, State.FAILED, ago_s=DAY_S + 60)
    assert (await sweep(bench))["objects"] == 5


async def test_what_nobody_remembers_waits_from_when_it_was_seen_first(bench: Bench) -> None:
    lost = await bench.operations.submit(Kind.BACKUP, {}, requested_by="test")
    await bench.leave_behind(lost)
    await bench.operations._collection.delete_one({"_id": lost.id})
    bench.settings = settings_of(bench.path, "{sweepGrace: 1h}")
    first = await sweep(bench)
    assert first["objects"] == 0
    seen = (await bench.schedule.read()).orphans
    assert set(seen) == {f"backup {lost.name}", f"operation {lost.id}"}
    await bench.operations._collection.database["tidelogConfig"].update_one(
        {"_id": "schedule"},
        [
            {
                "$set": {
                    f"orphans.{name}.first_seen": {"$subtract": ["$$NOW", 3_700_000]}
                    for name in seen
                }
            }
        ],
    )
    # The slice that no journal names cannot be told from one of PITR without its operation.
    assert (await sweep(bench))["objects"] == 4
    assert [key.split("/")[0] for key in await bench.keys()] == ["slices"]


async def test_what_storage_publishes_and_nobody_lists_is_listed_by_the_next_sweep(
    bench: Bench,
) -> None:
    await bench.back_up("b1", bench.now - 200)
    await bench.back_up("b2", bench.now - 100)
    await bench.catalog.withdraw_backup("b1")
    before = await bench.keys()
    assert (await sweep(bench))["listed"] == ["b1"]
    assert {one.id for one in await bench.catalog.backups()} == {"b1", "b2"}
    assert (await sweep(bench))["listed"] == []
    assert await bench.keys() == before


async def test_a_deletion_that_fails_for_good_leaves_the_backup_listed(bench: Bench) -> None:
    await bench.back_up("b1", bench.now - 200)
    await bench.back_up("b2", bench.now - 100)
    (harmed,) = bench.path.glob("backups/b2/*/manifest-*")
    harmed.chmod(0o600)
    harmed.write_bytes(b"decayed")
    with pytest.raises(IntegrityError):
        await bench.do(Kind.DELETE_BACKUP, DeleteBackupSpec(names=("b1",)))
    assert (await bench.catalog.backup("b1")).id == "b1"
    assert "backups/b1/backup.json" in await bench.keys()


async def test_chunks_that_were_read_again_go_and_the_backup_stays(bench: Bench) -> None:
    from tests.unit.operations.repositories import make_chunk

    await bench.back_up("b1", bench.now - 100)
    operation = await bench.operations.submit(Kind.BACKUP, {}, requested_by="test", name="b1")
    before = await bench.keys()
    await make_chunk(bench.storage, operation.id, 9)
    await make_chunk(bench.storage, "b1".ljust(24, "0"), 9)
    await bench.end(operation, State.DONE, ago_s=DAY_S + 60)
    bench.settings = settings_of(bench.path, "{sweepGrace: 1ms}")
    await sweep(bench)
    await sweep(bench)
    assert await bench.keys() == before
