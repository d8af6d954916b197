"""Lists that are behind: what was just written is not in them yet, what was just deleted still is.

Nothing is deleted, and nothing declared lost, because of it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog

from agent.archive.layout import backup_root
from agent.errors import NotFound, StorageUnavailable
from agent.operations.chains import rebuild, restore_runs
from agent.operations.context import LeadContext
from agent.operations.deletion import delete_backup
from agent.operations.inventory import is_published, published_names
from agent.operations.removal.objects import prove_gone
from agent.operations.removal.slices import named_slices
from agent.operations.removal.sweep import Sweep, Swept
from agent.operations.slices import described_refs
from agent.operations.verification.checking import Checker
from agent.operations.verification.ledger import Ledger
from agent.storage.base import ObjectInfo
from agent.storage.memory import MemoryStorage
from agent.store.slice_runs import SliceRuns
from tests.support.faulty_storage import FaultyStorage
from tests.unit.operations.memory_runs import MemoryRuns
from tests.unit.operations.repositories import (
    REPLSET,
    keys_of,
    make_chunk,
    make_slice,
    moment,
    publish,
)
from tests.unit.operations.test_chains import chain_of


async def _storage() -> FaultyStorage:
    return FaultyStorage(await MemoryStorage.open())


async def test_what_only_an_unlisted_backup_shares_is_not_deleted_with_another() -> None:
    storage = await _storage()
    shared = await make_chunk(storage.inner, "1" * 24, 0)
    sliced = await make_slice(storage.inner, 10, 30)
    await publish(storage.inner, "new", "2" * 24, [shared], [sliced])
    await publish(storage.inner, "old", "1" * 24, [shared], [sliced])
    storage.hide(backup_root("new"))
    assert await published_names(storage) == ["old"]
    assert await is_published(storage, "new")
    assert sliced.key in await named_slices(storage, moment(40), ["new"])
    await delete_backup(storage, "old", known=["new"])
    assert {shared.key, sliced.key} <= set(await keys_of(storage.inner))


async def test_what_is_deleted_is_gone_though_it_is_still_listed() -> None:
    storage = await _storage()
    await publish(storage.inner, "old", "1" * 24, [await make_chunk(storage.inner, "1" * 24, 0)])
    there = [item async for item in storage.inner.list("")]
    storage.haunt(*there)
    await delete_backup(storage, "old")
    assert await keys_of(storage.inner) == []
    await prove_gone(storage, [item.key for item in there])


@pytest.mark.parametrize("hidden", ["backups/new", "backups/"])
async def test_a_sweep_spares_what_a_backup_needs_that_is_not_listed_yet(hidden: str) -> None:
    """Though no grace is given, and nobody remembers the operation."""
    storage = await _storage()
    chunk = await make_chunk(storage.inner, "1" * 24, 0)
    await publish(storage.inner, "new", "1" * 24, [chunk])
    stray = await make_chunk(storage.inner, "2" * 24, 0)
    storage.hide(hidden)
    swept = Swept()
    await Sweep(_lead("new"), storage, now=datetime(2026, 11, 22, tzinfo=UTC), known={}).run(swept)
    assert stray.key not in await keys_of(storage.inner)
    assert chunk.key in await keys_of(storage.inner)
    assert swept.objects == 1


async def test_a_run_whose_end_is_not_listed_yet_is_not_cut_short() -> None:
    storage = await _storage()
    await chain_of(storage.inner, 10, 20, 30, 40)
    (run,) = (await rebuild(storage, REPLSET)).runs
    runs = MemoryRuns(run.model_copy(update={"sealed": True}))
    assert run.last_key is not None
    storage.hide(run.last_key)
    with pytest.raises(StorageUnavailable, match="which is there"):
        await restore_runs(cast(SliceRuns, runs), storage, REPLSET, None, check=lambda: None)
    assert [known.end for known in await runs.runs()] == [moment(40)]
    await storage.inner.delete([run.last_key])
    (cut,) = await restore_runs(cast(SliceRuns, runs), storage, REPLSET, None, check=lambda: None)
    assert cut.end == moment(30)


async def test_a_verification_gives_the_list_time_to_show_what_seems_to_be_missing() -> None:
    storage = await _storage()
    await chain_of(storage.inner, 10, 20, 30, 40)
    found = await rebuild(storage, REPLSET)
    keys = sorted(found.keys)
    checker = Checker(storage, Ledger({}), deep=True, on_step=lambda size: None, settle_s=0.0)
    storage.hide(keys[1], times=1)
    tally, lost = await checker.archived(REPLSET, found.runs)
    assert (tally.problems, lost) == ({}, [])
    storage.hide(keys[1])
    tally, lost = await checker.archived(REPLSET, found.runs)
    assert tally.problems
    assert lost
    storage.heal()
    storage.hide(keys[-1])
    with pytest.raises(StorageUnavailable, match="which is there"):
        await checker.archived(REPLSET, found.runs)


async def test_a_slice_that_was_deleted_and_is_still_listed_is_passed_over() -> None:
    storage = await _storage()
    await chain_of(storage.inner, 10, 20, 30, 40)
    items = [item async for item in storage.inner.list("slices/")]
    storage.haunt(items[0])
    await storage.inner.delete([items[0].key])
    assert [ref.start.T for ref in await described_refs(storage, items)] == [20, 30]
    (run,) = (await rebuild(storage, REPLSET)).runs
    assert (run.start.T, run.end.T, run.sealed) == (20, 40, False)
    storage.haunt(ObjectInfo(items[0].key.replace("slices/rs0", "slices/other"), 1))
    assert (await rebuild(storage, "other")).runs == ()


async def _nobody(op_id: str) -> Any:
    raise NotFound(f"there is no operation {op_id}")


def _lead(*listed: str) -> LeadContext:
    async def backups() -> list[Any]:
        return [SimpleNamespace(id=name) for name in listed]

    async def find(*_: Any) -> None:
        return None

    operations = SimpleNamespace(get=_nobody, find=find)
    services = SimpleNamespace(operations=operations, catalog=SimpleNamespace(backups=backups))
    return LeadContext(
        cast(Any, services),
        cast(Any, SimpleNamespace(policy=SimpleNamespace(sweep_grace=timedelta(0).seconds))),
        cast(Any, SimpleNamespace(check=lambda: None)),
        structlog.stdlib.get_logger(),
    )
