"""Settings read once for all: never older than a wake-up, nor than a few seconds."""

from __future__ import annotations

import asyncio

import pytest

from agent.coordination.recent_settings import KEPT_FOR_S, RecentSettings
from agent.errors import StoreUnavailable
from agent.wire.settings import Settings
from tests.support.manual_clock import ManualClock, settle


class Source:
    """Answers after as many seconds as it is told to."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.version, self.reads, self.takes_s = clock, 1, 0, 0.0
        self.is_away = False

    async def read(self) -> tuple[Settings, int]:
        self.reads += 1
        version = self.version
        if self.is_away:
            raise StoreUnavailable("away")
        if self.takes_s:
            await self.clock.sleep(self.takes_s)
        return Settings(), version


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def source(clock: ManualClock) -> Source:
    return Source(clock)


async def test_many_who_look_cost_one_read(clock: ManualClock, source: Source) -> None:
    recent = RecentSettings(source, clock)
    source.takes_s = 1.0
    async with asyncio.TaskGroup() as group:
        looking = [group.create_task(recent.read()) for _ in range(5)]
        await settle()
        await clock.advance(1.0)
    assert [look.result()[1] for look in looking] == [1] * 5
    assert source.reads == 1


async def test_after_a_wake_up_nobody_gets_older_ones(clock: ManualClock, source: Source) -> None:
    recent = RecentSettings(source, clock)
    assert (await recent.read())[1] == 1
    source.version = 2
    recent.wake()
    assert (await recent.read())[1] == 2


async def test_what_is_being_read_at_a_wake_up_serves_no_later_one(
    clock: ManualClock, source: Source
) -> None:
    recent = RecentSettings(source, clock)
    source.takes_s = 1.0
    async with asyncio.TaskGroup() as group:
        before = group.create_task(recent.read())
        await settle()
        source.version = 2
        recent.wake()
        after = group.create_task(recent.read())
        await settle()
        await clock.advance(2.0)
    assert (before.result()[1], after.result()[1]) == (1, 2)


async def test_a_lost_wake_up_costs_seconds(clock: ManualClock, source: Source) -> None:
    recent = RecentSettings(source, clock)
    await recent.read()
    source.version = 2
    await clock.advance(KEPT_FOR_S - 1)
    assert (await recent.read())[1] == 1
    await clock.advance(1)
    assert (await recent.read())[1] == 2


async def test_trouble_is_told_and_not_kept(clock: ManualClock, source: Source) -> None:
    recent = RecentSettings(source, clock)
    source.is_away = True
    with pytest.raises(StoreUnavailable):
        await recent.read()
    source.is_away = False
    assert (await recent.read())[1] == 1
