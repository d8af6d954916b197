"""What is tried again, how often, how long, and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import (
    IntegrityError,
    ObjectExists,
    ObjectNotFound,
    PermissionDenied,
    StorageFull,
    StorageUnavailable,
    Throttled,
)
from agent.storage.base import get_bytes, put_bytes
from agent.storage.memory import MemoryStorage
from agent.storage.retrying import RetryingStorage, RetryPolicy, put_object
from tests.support.faulty_storage import FOREVER, FaultyStorage
from tests.unit.storage.clocks import FakeClock

pytestmark = pytest.mark.unit

MIB = 1024 * 1024
GONE = StorageUnavailable("no route to the storage")
POLICY = RetryPolicy(max_attempts=4, base_delay_s=1.0, max_backoff_s=5.0, deadline_s=60.0)


@dataclass
class Bench:
    faulty: FaultyStorage
    storage: RetryingStorage
    clock: FakeClock
    retries: list[tuple[str, str, int]] = field(default_factory=list)


async def bench(policy: RetryPolicy = POLICY) -> Bench:
    faulty, clock = FaultyStorage(await MemoryStorage.open()), FakeClock()
    retries: list[tuple[str, str, int]] = []
    storage = RetryingStorage(
        faulty,
        policy,
        clock=clock,
        on_retry=lambda verb, key, attempt, error, pause_s: retries.append((verb, key, attempt)),
    )
    return Bench(faulty, storage, clock, retries)


async def once(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def listed(bench: Bench) -> list[str]:
    return [found.key async for found in bench.storage.list("")]


async def test_transient_errors_are_retried_until_it_works() -> None:
    one = await bench()
    await put_bytes(one.storage, "key", b"body")
    one.faulty.fail("stat", GONE, times=3)
    assert (await one.storage.stat("key")).size_bytes == 4
    assert one.faulty.count("stat") == 4
    assert one.retries == [("stat", "key", 1), ("stat", "key", 2), ("stat", "key", 3)]


async def test_attempts_count_the_first_one_and_the_last_error_is_raised() -> None:
    one = await bench()
    for number in range(1, 6):
        one.faulty.fail("stat", StorageUnavailable(f"failure {number}"), call=number)
    with pytest.raises(StorageUnavailable, match="failure 4") as raised:
        await one.storage.stat("key")
    assert one.faulty.count("stat") == 4
    assert raised.value.__notes__ == [f"gave up after 4 attempts in {sum(one.clock.slept):.1f} s"]


@pytest.mark.parametrize(
    "error",
    [PermissionDenied("x"), StorageFull("x"), IntegrityError("x"), ValueError("x"), KeyError("x")],
)
async def test_other_errors_are_never_retried(error: Exception) -> None:
    one = await bench()
    one.faulty.fail("stat", error, times=FOREVER)
    with pytest.raises(type(error)):
        await one.storage.stat("key")
    assert one.faulty.count("stat") == 1
    assert one.clock.slept == []


async def test_an_absent_object_is_told_at_once() -> None:
    one = await bench()
    with pytest.raises(ObjectNotFound):
        await get_bytes(one.storage, "key")
    assert one.faulty.count("get") == 1


async def test_pauses_double_with_jitter_up_to_the_cap() -> None:
    one = await bench(RetryPolicy(max_attempts=7, base_delay_s=1.0, max_backoff_s=5.0))
    one.faulty.fail("stat", GONE, times=FOREVER)
    with pytest.raises(StorageUnavailable):
        await one.storage.stat("key")
    assert len(one.clock.slept) == 6
    for pause, most in zip(one.clock.slept, [1, 2, 4, 5, 5, 5], strict=True):
        assert most / 2 <= pause <= most


@given(st.integers(1, 10**6), st.floats(0.001, 100), st.floats(0.001, 1000))
def test_a_pause_is_never_over_the_cap(failed: int, base: float, cap: float) -> None:
    policy = RetryPolicy(base_delay_s=base, max_backoff_s=cap)
    assert 0 < policy.pause_s(failed, GONE) <= cap


async def test_a_throttled_request_waits_as_long_as_asked() -> None:
    one = await bench()
    one.faulty.fail("stat", Throttled("slow down", retry_after_s=17.0))
    with pytest.raises(ObjectNotFound):
        await one.storage.stat("key")
    assert one.clock.slept == [17.0]


async def test_no_pause_reaches_past_the_deadline() -> None:
    one = await bench(RetryPolicy(max_attempts=99, base_delay_s=10.0, deadline_s=60.0))
    one.faulty.fail("stat", GONE, times=FOREVER)
    with pytest.raises(StorageUnavailable):
        await one.storage.stat("key")
    assert sum(one.clock.slept) <= 60
    assert one.faulty.count("stat") > 2

    two = await bench()
    two.faulty.fail("stat", Throttled("slow down", retry_after_s=61.0), times=FOREVER)
    with pytest.raises(Throttled):
        await two.storage.stat("key")
    assert two.clock.slept == []


async def test_the_deadline_does_not_count_the_first_attempt() -> None:
    one = await bench()

    async def slow() -> AsyncIterator[bytes]:
        one.clock.now_s += 3600
        yield b"body"

    one.faulty.cut("put", 2, GONE)
    await put_object(one.storage, "key", slow)
    assert one.faulty.count("put") == 2


async def test_cancellation_ends_the_pause() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.fail("stat", GONE, times=FOREVER)
    storage = RetryingStorage(faulty, RetryPolicy(base_delay_s=100, max_backoff_s=100))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await storage.stat("key")
    assert faulty.count("stat") == 1


# put


async def test_a_put_of_a_stream_is_not_retried() -> None:
    one = await bench()
    one.faulty.fail("put", GONE)
    with pytest.raises(StorageUnavailable):
        await one.storage.put("key", once(b"a", b"b"))
    assert one.faulty.count("put") == 1


async def test_a_put_with_a_factory_starts_again_from_the_first_byte() -> None:
    one = await bench()
    one.faulty.cut("put", 3, GONE, times=2)
    await put_object(one.storage, "key", lambda: once(b"ab", b"cd", b"ef"))
    assert one.faulty.count("put") == 3
    assert await get_bytes(one.storage, "key") == b"abcdef"


async def test_bytes_are_a_source_that_starts_again() -> None:
    one = await bench()
    one.faulty.cut("put", 1, GONE, times=3)
    await put_bytes(one.storage, "key", b"body")
    assert await get_bytes(one.storage, "key") == b"body"


async def test_each_stream_of_the_factory_is_closed() -> None:
    one = await bench()
    closed: list[str] = []

    async def stream() -> AsyncIterator[bytes]:
        try:
            yield b"ab"
            yield b"cd"
        finally:
            closed.append("closed")

    one.faulty.cut("put", 2, GONE, times=2)
    await put_object(one.storage, "key", stream)
    assert closed == ["closed"] * 3


async def test_a_put_whose_answer_was_lost_counts_if_the_bytes_are_the_same() -> None:
    one = await bench()
    one.faulty.fail_after("put", GONE)
    stored = await put_object(one.storage, "key", lambda: once(b"ab", b"cd"))
    assert stored.size_bytes == 4
    assert one.faulty.count("put") == 2


@pytest.mark.parametrize("theirs", [b"abcX", b"abc", b"abcde"])
async def test_a_put_that_finds_other_bytes_after_a_failure_raises(theirs: bytes) -> None:
    one = await bench()
    one.faulty.fail("put", GONE)
    await put_bytes(one.faulty.inner, "key", theirs)
    with pytest.raises(ObjectExists):
        await put_bytes(one.storage, "key", b"abcd")


async def test_a_taken_key_at_the_first_attempt_is_not_looked_into() -> None:
    one = await bench()
    await put_bytes(one.storage, "key", b"same")
    with pytest.raises(ObjectExists):
        await put_bytes(one.storage, "key", b"same")
    assert one.faulty.count("get") == 0


# get


BODY = bytes(range(256)) * (3 * MIB // 256) + b"end"


async def read(one: Bench, offset: int, length: int | None) -> bytes:
    async with one.storage.get("key", offset=offset, length=length) as stream:
        return b"".join([block async for block in stream])


@pytest.mark.parametrize(("offset", "length"), [(0, None), (100, None), (7, 2 * MIB), (0, 0)])
@pytest.mark.parametrize("at", [0, 1, MIB, MIB + 5, 2 * MIB - 1])
async def test_a_stream_that_is_cut_goes_on_at_its_offset(
    offset: int, length: int | None, at: int
) -> None:
    one = await bench()
    await put_bytes(one.storage, "key", BODY)
    one.faulty.cut("get", at, GONE, times=2)
    end = None if length is None else offset + length
    assert await read(one, offset, length) == BODY[offset:end]


async def test_progress_gives_all_attempts_again() -> None:
    one = await bench(RetryPolicy(max_attempts=2, base_delay_s=1.0, deadline_s=2.5))
    await put_bytes(one.storage, "key", BODY)
    one.faulty.cut("get", 300_000, GONE, times=10)
    assert await read(one, 0, None) == BODY
    assert one.faulty.count("get") == 11


async def test_a_stream_without_progress_gives_up() -> None:
    one = await bench()
    await put_bytes(one.storage, "key", BODY)
    one.faulty.cut("get", 1000, GONE)
    one.faulty.fail("get", GONE, call=2, times=FOREVER)
    with pytest.raises(StorageUnavailable):
        await read(one, 0, None)
    assert one.faulty.count("get") == 4  # the one that was cut, and three that got nowhere


async def test_opening_is_retried() -> None:
    one = await bench()
    await put_bytes(one.storage, "key", BODY)
    one.faulty.fail("get", GONE, times=3)
    assert await read(one, 5, 5) == BODY[5:10]


async def test_an_error_of_the_reader_is_not_taken_for_one_of_the_storage() -> None:
    one = await bench()
    await put_bytes(one.storage, "key", BODY)

    async def fail() -> None:
        async with one.storage.get("key") as stream:
            async for _block in stream:
                raise StorageUnavailable("of another storage")

    with pytest.raises(StorageUnavailable, match="another"):
        await fail()
    assert one.faulty.count("get") == 1
    assert one.clock.slept == []


# list, delete, verify


@pytest.mark.parametrize("at", [0, 1, 5, 6])
async def test_a_listing_that_is_cut_goes_on_after_the_last_key(at: int) -> None:
    one = await bench()
    keys = [f"a/{number}" for number in range(7)]
    for key in keys:
        await put_bytes(one.storage, key, b"")
    one.faulty.cut("list", at, GONE, times=2)
    assert await listed(one) == keys


async def test_a_listing_that_progresses_has_all_attempts_again() -> None:
    one = await bench(RetryPolicy(max_attempts=2))
    keys = [f"{number}" for number in range(6)]
    for key in keys:
        await put_bytes(one.storage, key, b"")
    one.faulty.cut("list", 1, GONE, times=5)
    assert await listed(one) == keys


async def test_a_listing_without_progress_gives_up() -> None:
    one = await bench()
    one.faulty.fail("list", GONE, times=FOREVER)
    with pytest.raises(StorageUnavailable):
        await listed(one)
    assert one.faulty.count("list") == 4


async def test_deletes_are_retried_in_batches() -> None:
    one = await bench()
    for number in range(5):
        await put_bytes(one.storage, f"{number}", b"")
    one.faulty.fail_after("delete", GONE, times=2)
    await one.storage.delete(f"{number}" for number in range(2500))
    assert one.faulty.count("delete") == 3 + 2
    assert await listed(one) == []


async def test_verify_tells_of_the_first_error() -> None:
    one = await bench()
    one.faulty.fail("verify", GONE)
    with pytest.raises(StorageUnavailable):
        await one.storage.verify()
    assert one.clock.slept == []


async def test_without_a_listener_retries_are_quiet() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.fail("delete", GONE)
    await RetryingStorage(faulty, clock=FakeClock()).delete(["a"])
    assert faulty.count("delete") == 2
