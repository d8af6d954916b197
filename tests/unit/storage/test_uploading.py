"""What all cloud drivers share: parts, pace, and what is fetched before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent.errors import PermissionDenied, StorageUnavailable, Throttled
from agent.storage.multipart import Plan, upload
from agent.storage.pacing import Pace
from agent.storage.refreshing import Fresh, Refreshing
from agent.storage.retrying import Attempts, RetryPolicy
from tests.unit.storage.clocks import FakeClock

PLAN = Plan(part_bytes=10, max_parts=5, in_flight=2)


class Recorder:
    """A target in memory."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.parts: dict[int, bytes] = {}
        self.held = 0
        self.most_held = 0
        self.errors: list[Exception] = []

    async def whole(self, body: bytes) -> None:
        self.calls.append(f"whole {len(body)}")

    async def begin(self) -> None:
        self.calls.append("begin")

    async def part(self, number: int, body: bytes) -> int:
        self.held += 1
        self.most_held = max(self.most_held, self.held)
        try:
            await asyncio.sleep(0)
            if self.errors:
                raise self.errors.pop()
            self.parts[number] = body
            return number
        finally:
            self.held -= 1

    async def finish(self, receipts: list[int], size_bytes: int) -> None:
        self.calls.append(f"finish {receipts} {size_bytes}")

    async def abort(self) -> None:
        await asyncio.sleep(0)
        self.calls.append("abort")


async def source(size: int, block: int) -> AsyncIterator[bytes]:
    data = bytes(number % 251 for number in range(size))
    for start in range(0, size, block):
        yield data[start : start + block]


def attempts() -> Attempts:
    return Attempts("put", "key", RetryPolicy(max_attempts=3), FakeClock(), lambda *_: None)


@pytest.mark.parametrize("block", [1, 3, 10, 25, 100])
@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 49, 50])
async def test_parts_are_cut_exactly_however_the_blocks_come(size: int, block: int) -> None:
    target = Recorder()
    assert await upload(source(size, block), target, PLAN, attempts) == size
    if size <= 10:
        assert target.calls == [f"whole {size}"]
        return
    joined = b"".join(target.parts[number] for number in sorted(target.parts))
    assert joined == bytes(number % 251 for number in range(size))
    assert all(len(target.parts[number]) == 10 for number in range(1, len(target.parts)))
    assert target.calls[-1] == f"finish {sorted(target.parts)} {size}"
    assert target.most_held <= 2


async def test_a_part_is_tried_again_and_no_other() -> None:
    target = Recorder()
    target.errors = [StorageUnavailable("reset"), StorageUnavailable("reset")]
    await upload(source(35, 7), target, PLAN, attempts)
    assert target.calls == ["begin", "finish [1, 2, 3, 4] 35"]


async def test_an_upload_that_fails_is_aborted_once_and_raises_no_group() -> None:
    target = Recorder()
    target.errors = [PermissionDenied("no")]
    with pytest.raises(PermissionDenied, match="no"):
        await upload(source(35, 7), target, PLAN, attempts)
    assert target.calls == ["begin", "abort"]


async def test_too_many_parts_are_refused() -> None:
    target = Recorder()
    with pytest.raises(Exception, match="more than 5 parts"):
        await upload(source(51, 7), target, PLAN, attempts)
    assert target.calls[-1] == "abort"
    assert PLAN.for_size(40) is PLAN
    assert PLAN.for_size(10_000_000).part_bytes * 5 > 10_000_000


async def test_throttling_halves_the_pace_and_success_gives_it_back() -> None:
    clock = FakeClock()
    pace = Pace(8, clock)
    with pytest.raises(Throttled):
        async with pace.turn():
            raise Throttled("slow down", retry_after_s=3)
    assert pace.allowed == 4
    before = clock.monotonic()
    async with pace.turn():
        assert clock.monotonic() - before >= 3
    for _ in range(60):
        async with pace.turn():
            pass
    assert pace.allowed == 8


async def test_what_expires_is_fetched_in_time_and_an_old_one_bridges_an_outage() -> None:
    clock, fetched, fails = FakeClock(), [0], [False]

    async def fetch() -> Fresh[int]:
        if fails[0]:
            raise StorageUnavailable("the token service is down")
        fetched[0] += 1
        return Fresh(fetched[0], 3600.0)

    token = Refreshing(fetch, clock)
    assert [await token.get() for _ in range(3)] == [1, 1, 1]
    await clock.sleep(3310)
    fails[0] = True
    assert await token.get() == 1
    fails[0] = False
    await clock.sleep(11)
    assert await token.get() == 2
    fails[0] = True
    await clock.sleep(3599)
    with pytest.raises(StorageUnavailable):
        await token.get()
