"""Which wrapped data keys a sweep may take: one too many loses nothing, one too few loses data."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from agent.archive.layout import slice_key
from agent.archive.vault import stored_name, write_for
from agent.operations.removal.keys import unneeded_keys
from agent.storage.base import put_bytes
from agent.wire.optime import OpTime
from tests.support.vaults import NOW, Vaults

DAY = timedelta(days=1)
LATER = NOW + timedelta(hours=2)


def moment(at: datetime) -> OpTime:
    """Its first OpTime."""
    return OpTime(T=int(at.timestamp()), I=1)


async def key_of(vaults: Vaults, at: datetime, replset: str = "rs0") -> str:
    """The id of the data key of a day's slices; made if it is not there."""
    storage = await vaults.open()
    await write_for(storage, "pitr", replset)
    key = stored_name(storage, slice_key(replset, moment(at), moment(at), 1, 1))
    return (await storage.keyring.writing_key(key)).id


async def slice_of(vaults: Vaults, at: datetime, suffix: str = ".enc", replset: str = "rs0") -> str:
    """A slice of a day, as a listing shows it."""
    key = slice_key(replset, moment(at), moment(at), 1, 1) + suffix
    await put_bytes(vaults_storage := await vaults.open(), key, b"sealed" if suffix else b"")
    await vaults_storage.aclose()
    return key


async def swept(vaults: Vaults, now: datetime = LATER, named: set[str] | None = None) -> set[str]:
    """Whose keys may go."""
    storage = await vaults.open()
    return {owner async for owner, _ in unneeded_keys(storage, named or set(), now)}


@pytest.fixture
async def vaults() -> Vaults:
    made = Vaults()
    await made.policy()
    return made


async def test_the_key_of_a_day_goes_when_its_slices_are_gone(vaults: Vaults) -> None:
    old, kept, today = [await key_of(vaults, NOW - DAY * days) for days in (3, 2, 0)]
    await slice_of(vaults, NOW - DAY * 2)
    await slice_of(vaults, NOW)
    assert await swept(vaults) == {f"day {old}"}
    assert kept != today


async def test_a_key_that_a_kept_backup_names_stays(vaults: Vaults) -> None:
    old = await key_of(vaults, NOW - DAY * 3)
    await slice_of(vaults, NOW)
    assert await swept(vaults, named={old}) == set()


async def test_days_that_a_slicer_may_still_write_to_keep_their_keys(vaults: Vaults) -> None:
    """It is behind, and has made the key of the day it is about to write to."""
    ahead = await key_of(vaults, NOW - DAY * 2)
    await slice_of(vaults, NOW - DAY * 3)
    assert await swept(vaults) == set()
    assert ahead


async def test_without_any_slices_the_last_two_days_keep_their_keys(vaults: Vaults) -> None:
    old, *_ = [await key_of(vaults, NOW - DAY * days) for days in (2, 1, 0)]
    assert await swept(vaults) == {f"day {old}"}


async def test_a_key_that_was_just_made_stays(vaults: Vaults) -> None:
    await key_of(vaults, NOW - DAY * 3)
    await slice_of(vaults, NOW)
    assert await swept(vaults, NOW + timedelta(minutes=59)) == set()


async def test_replica_sets_are_told_apart_whatever_they_are_called(vaults: Vaults) -> None:
    first = await key_of(vaults, NOW - DAY * 3, "a-1.b")
    second = await key_of(vaults, NOW - DAY * 3, "a-1")
    await slice_of(vaults, NOW - DAY * 3, replset="a-1")
    for replset in ("a-1", "a-1.b"):
        await slice_of(vaults, NOW, replset=replset)
    assert await swept(vaults) == {f"day {first}"}
    assert second


async def test_the_key_of_a_backup_is_judged_by_its_operation(vaults: Vaults) -> None:
    made = await (await vaults.writing("6921a0")).keyring.writing_key("backups/b/backup.json")
    assert await swept(vaults) == {"operation 6921a0"}
    assert await swept(vaults, named={made.id}) == set()
    assert await swept(vaults, NOW) == set()
