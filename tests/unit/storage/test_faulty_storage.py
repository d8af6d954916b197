"""The script of the faulty storage does what it says, and only then."""

from __future__ import annotations

import pytest

from agent.errors import ObjectNotFound, StorageFull, StorageUnavailable
from agent.storage.base import get_bytes, put_bytes
from agent.storage.memory import MemoryStorage
from tests.support.faulty_storage import FOREVER, FaultyStorage
from tests.unit.storage.clocks import FakeClock

pytestmark = pytest.mark.unit

RESET = StorageUnavailable("connection reset")


async def faulty_with(*keys: str) -> FaultyStorage:
    faulty = FaultyStorage(await MemoryStorage.open())
    for key in keys:
        await put_bytes(faulty.inner, key, b"0123456789")
    return faulty


async def test_the_nth_calls_fail() -> None:
    faulty = await faulty_with("a")
    faulty.fail("stat", RESET, call=2, times=2)
    outcomes: list[int | None] = []
    for _ in range(4):
        try:
            outcomes.append((await faulty.stat("a")).size_bytes)
        except StorageUnavailable:
            outcomes.append(None)
    assert outcomes == [10, None, None, 10]
    assert faulty.calls == [("stat", "a")] * 4


async def test_only_matching_keys_are_counted() -> None:
    faulty = await faulty_with()
    faulty.fail("put", StorageFull("full"), call=2, times=FOREVER, matching="chunks/")
    await put_bytes(faulty, "chunks/1", b"")
    await put_bytes(faulty, "other/1", b"")
    await put_bytes(faulty, "other/2", b"")
    with pytest.raises(StorageFull):
        await put_bytes(faulty, "chunks/2", b"")
    faulty.heal()
    await put_bytes(faulty, "chunks/3", b"")


async def test_an_answer_is_lost_after_the_deed() -> None:
    faulty = await faulty_with()
    faulty.fail_after("put", RESET)
    with pytest.raises(StorageUnavailable):
        await put_bytes(faulty, "a", b"body")
    assert await get_bytes(faulty, "a") == b"body"


async def test_streams_are_cut_truncated_and_corrupted_at_a_byte() -> None:
    faulty = await faulty_with("a")
    received = b""
    faulty.cut("get", 4, RESET, call=1)
    faulty.truncate("get", 3, call=2)
    faulty.corrupt("get", 2, call=3)

    async def read() -> None:
        nonlocal received
        async with faulty.get("a") as stream:
            async for block in stream:
                received += block

    with pytest.raises(StorageUnavailable):
        await read()
    assert received == b"0123"
    assert await get_bytes(faulty, "a") == b"012"
    assert await get_bytes(faulty, "a") == b"01\xcd3456789"
    assert await get_bytes(faulty, "a") == b"0123456789"


async def test_writes_are_dropped_truncated_and_corrupted() -> None:
    faulty = await faulty_with()
    faulty.drop_write(call=1)
    faulty.truncate("put", 2, call=2)
    faulty.corrupt("put", 0, call=3)
    assert (await put_bytes(faulty, "a", b"body")).size_bytes == 4
    with pytest.raises(ObjectNotFound):
        await faulty.stat("a")
    await put_bytes(faulty, "b", b"body")
    await put_bytes(faulty, "c", b"body")
    assert await get_bytes(faulty, "b") == b"bo"
    assert await get_bytes(faulty, "c") == b"\x9dody"


async def test_listings_repeat_themselves_and_are_cut() -> None:
    faulty = await faulty_with("a", "b", "c")
    faulty.duplicate_entries(times=1)
    faulty.cut("list", 2, RESET, call=2)
    assert [each.key async for each in faulty.list("")] == ["a", "a", "b", "b", "c", "c"]
    found = []

    async def collect() -> None:
        async for each in faulty.list(""):
            found.append(each.key)  # noqa: PERF401  (the listing raises)

    with pytest.raises(StorageUnavailable):
        await collect()
    assert found == ["a", "b"]


async def test_deletes_are_dropped_and_calls_delayed() -> None:
    clock = FakeClock()
    faulty = FaultyStorage(await MemoryStorage.open(), clock=clock)
    await put_bytes(faulty, "a", b"")
    faulty.drop_delete()
    faulty.delay("delete", 3.0, call=2)
    await faulty.delete(["a"])
    await faulty.stat("a")
    await faulty.delete(["a"])
    assert clock.slept == [3.0]
    assert faulty.count("delete") == 2
    with pytest.raises(ObjectNotFound):
        await faulty.stat("a")
