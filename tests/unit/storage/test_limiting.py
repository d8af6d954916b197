"""How many requests at once, how many bytes a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.errors import Throttled
from agent.storage.base import get_bytes, put_bytes
from agent.storage.limiting import LimitingStorage, TokenBucket
from agent.storage.memory import MemoryStorage
from tests.support.faulty_storage import FaultyStorage
from tests.unit.storage.clocks import FakeClock

pytestmark = pytest.mark.unit


async def limited(
    limit: int | None = None, bytes_per_s: float | None = None
) -> tuple[LimitingStorage, FaultyStorage, FakeClock]:
    clock, faulty = FakeClock(), FaultyStorage(await MemoryStorage.open())
    bucket = TokenBucket(bytes_per_s, clock=clock)
    storage = LimitingStorage(faulty, max_concurrency=limit, bucket=bucket, clock=clock)
    return storage, faulty, clock


async def test_no_more_requests_than_allowed_are_under_way() -> None:
    storage, _, _ = await limited(3)
    under_way, most = 0, 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(5):
            await asyncio.sleep(0)
        yield b"body"
        under_way -= 1

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(storage.put(f"{number}", source()))
    assert most == 3


async def test_the_driver_has_the_last_word_on_concurrency() -> None:
    storage, _, _ = await limited(10**6)
    async with asyncio.timeout(10):
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(put_bytes(storage, f"{number}", b""))
    assert len([each async for each in storage.list("")]) == 200


async def test_a_reader_holds_no_slot_while_it_thinks() -> None:
    storage, _, _ = await limited(1)
    await put_bytes(storage, "a", b"body")
    async with asyncio.timeout(5), storage.get("a") as stream:
        async for _block in stream:
            await put_bytes(storage, "b", b"")
            async for found in storage.list(""):
                await storage.stat(found.key)
                await storage.delete([found.key])


async def test_a_failed_or_cancelled_call_gives_its_slot_back() -> None:
    storage, faulty, _ = await limited(1)
    faulty.fail("stat", KeyError("x"))
    with pytest.raises(KeyError):
        await storage.stat("a")

    async def stalling() -> AsyncIterator[bytes]:
        await asyncio.sleep(3600)
        yield b""

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await storage.put("a", stalling())
    async with asyncio.timeout(5):
        await put_bytes(storage, "a", b"body")


async def test_bytes_pass_at_the_rate() -> None:
    storage, _, clock = await limited(bytes_per_s=1000)
    started = clock.now_s

    async def source() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(100)

    await storage.put("key", source())
    assert clock.now_s - started == pytest.approx(10, abs=0.3)
    assert await get_bytes(storage, "key") == bytes(10_000)
    await put_bytes(storage, "next", b"")
    assert clock.now_s - started == pytest.approx(20, abs=0.6)


async def test_the_rate_is_shared_by_all_requests() -> None:
    storage, _, clock = await limited(bytes_per_s=1000)
    started = clock.now_s
    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(put_bytes(storage, f"{number}", bytes(500)))
    assert clock.now_s - started == pytest.approx(4.5, abs=0.3)


async def test_a_block_larger_than_the_rate_passes() -> None:
    clock = FakeClock()
    bucket = TokenBucket(10, clock=clock)
    await bucket.take(1000)
    assert clock.slept == []
    await bucket.take(1)
    assert sum(clock.slept) == pytest.approx(100)


async def test_idle_time_is_not_saved_up() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1000, clock=clock)
    clock.now_s += 3600
    for _ in range(10):
        await bucket.take(100)
    assert sum(clock.slept) >= 0.6


async def test_a_changed_rate_counts_for_those_who_wait() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, clock=clock)
    await bucket.take(10**6)

    async def faster() -> None:
        await asyncio.sleep(0)
        bucket.set_rate(10**6)

    async with asyncio.TaskGroup() as group:
        group.create_task(bucket.take(1))
        group.create_task(faster())
    assert sum(clock.slept) < 3
    await bucket.take(10**6)
    bucket.set_rate(None)
    slept = len(clock.slept)
    await bucket.take(10**9)
    assert len(clock.slept) == slept


async def test_a_limit_lifted_lets_the_waiting_through() -> None:
    clock = FakeClock()
    bucket = TokenBucket(1, clock=clock)
    await bucket.take(10**9)

    async def lift() -> None:
        await asyncio.sleep(0)
        bucket.set_rate(None)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(bucket.take(1))
        group.create_task(lift())
    assert sum(clock.slept) < 2


@pytest.mark.parametrize("rate", [0, -1.5])
def test_a_rate_that_lets_nothing_through_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="lets nothing through"):
        TokenBucket(rate, clock=FakeClock())


async def test_when_one_is_throttled_all_wait() -> None:
    storage, faulty, clock = await limited()
    faulty.fail("stat", Throttled("slow down", retry_after_s=7.0))
    with pytest.raises(Throttled):
        await storage.stat("a")
    assert clock.slept == []
    await put_bytes(storage, "other", b"")
    assert sum(clock.slept) == pytest.approx(7)
    await put_bytes(storage, "third", b"")
    assert sum(clock.slept) == pytest.approx(7)


async def test_a_listing_left_early_gives_everything_back() -> None:
    storage, _, _ = await limited(1)
    for number in range(300):
        await put_bytes(storage, f"{number:03}", b"")
    entries = storage.list("")
    assert (await anext(entries)).key == "000"
    await entries.aclose()  # type: ignore[attr-defined]
    assert len([each async for each in storage.list("")]) == 300
