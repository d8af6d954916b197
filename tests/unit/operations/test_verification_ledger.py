"""What verifications remember of each other, and that one can do without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from agent.errors import ObjectLocked, PermissionDenied, StorageFull
from agent.operations.verification.ledger import Ledger
from agent.storage.memory import MemoryObjects, MemoryStorage
from tests.support.faulty_storage import FOREVER, FaultyStorage

NAME: Final = "2026-03-01T12:00:00Z"
AT: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage(MemoryStorage(MemoryObjects(), "ledger"))


async def _read(storage: FaultyStorage, later: timedelta) -> Ledger:
    return await Ledger.read(storage, now=AT + later, max_age=timedelta(days=7))


async def test_what_was_read_is_known_for_as_long_as_is_wanted(storage: FaultyStorage) -> None:
    ledger = Ledger({})
    ledger.add("chunks/a", "digest")
    assert await ledger.save(storage, NAME, 1) is None
    assert (await _read(storage, timedelta(days=6))).is_proven("chunks/a", "digest")
    assert not (await _read(storage, timedelta(days=6))).is_proven("chunks/a", "another")
    assert not (await _read(storage, timedelta(days=8))).is_proven("chunks/a", "digest")


@pytest.mark.parametrize("refusal", [StorageFull("it is full"), PermissionDenied("read-only")])
async def test_a_storage_that_takes_nothing_ends_no_verification(
    storage: FaultyStorage, refusal: Exception
) -> None:
    storage.fail("put", refusal, call=1, times=FOREVER)
    ledger = Ledger({})
    ledger.add("chunks/a", "digest")
    assert await ledger.save(storage, NAME, 1) == str(refusal)
    assert not (await _read(storage, timedelta())).is_proven("chunks/a", "digest")


async def test_old_records_that_are_kept_from_going_are_left(storage: FaultyStorage) -> None:
    ledger = Ledger({})
    ledger.add("chunks/a", "digest")
    await ledger.save(storage, NAME, 1)
    storage.fail("delete", ObjectLocked("locked"), call=1)
    await _read(storage, timedelta(days=500))
    assert [item.key async for item in storage.list("verified/")]
    await _read(storage, timedelta(days=500))
    assert not [item.key async for item in storage.list("verified/")]
