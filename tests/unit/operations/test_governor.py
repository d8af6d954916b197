"""Backups and restores at the pace that is wanted, also when it changes meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from agent.coordination.wakeup import Wakeup
from agent.operations.governor import READ_EVERY_S, Governor
from agent.wire.limits import Limits, Rates, Window
from tests.support.manual_clock import ManualClock, settle

START = datetime(2026, 11, 23, 8, 59, 50, tzinfo=UTC)


class Source:
    def __init__(self, limits: Limits, clock: ManualClock) -> None:
        self.limits, self.clock, self.reads = limits, clock, 0

    async def read(self) -> tuple[Limits, datetime]:
        self.reads += 1
        return self.limits, START + timedelta(seconds=self.clock.monotonic() - 1000.0)


def governor(clock: ManualClock, lags: list[float] | None = None) -> Governor:
    async def lag_s() -> float:
        assert lags is not None
        return lags.pop(0)

    return Governor(clock, lag_s)


async def taken_within(clock: ManualClock, work: asyncio.Task[None]) -> float:
    begun = clock.now_s
    while not work.done():
        await clock.advance(0.25)
    return clock.now_s - begun


async def read(governed: Governor, blocks: int) -> None:
    for _ in range(blocks):
        await governed.read(1_000)


async def test_without_limits_nothing_waits_and_nobody_is_asked() -> None:
    clock = ManualClock()
    await read(governor(clock), 1_000)
    assert clock.now_s == 1000.0


async def test_reading_keeps_its_rate_within_a_tenth() -> None:
    clock = ManualClock()
    governed = governor(clock)
    governed.apply(Rates(read_bytes_per_s=10_000))
    async with asyncio.TaskGroup() as group:
        took_s = await taken_within(clock, group.create_task(read(governed, 200)))
    assert 18 <= took_s <= 22


async def test_a_rate_that_is_lifted_lets_those_go_who_wait() -> None:
    clock = ManualClock()
    governed = governor(clock)
    governed.apply(Rates(read_bytes_per_s=10))
    async with asyncio.TaskGroup() as group:
        work = group.create_task(read(governed, 100))
        await clock.advance(5.0)
        assert not work.done()
        governed.apply(Rates())
        assert await taken_within(clock, work) <= 1.0


async def test_a_backup_waits_while_its_node_is_behind() -> None:
    clock = ManualClock()
    lags = [30.0, 20.0, 1.0]
    governed = governor(clock, lags)
    governed.apply(Rates(max_lag_s=10.0))
    async with asyncio.TaskGroup() as group:
        took_s = await taken_within(clock, group.create_task(read(governed, 50)))
    assert took_s == 4.0
    assert lags == []


async def test_a_window_begins_by_itself_at_the_servers_time() -> None:
    clock = ManualClock()
    nine = Window.model_validate(
        {"start": "09:00", "end": "10:00", "rates": Rates(network_bytes_per_s=7)}
    )
    governed, wakeup = governor(clock), Wakeup(poll_s=READ_EVERY_S)
    source = Source(Limits(windows=(nine,)), clock)
    applied: list[Rates] = []
    governed.apply = applied.append  # type: ignore[method-assign,assignment]  # what holds, step by step
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(governed.watch(source, wakeup))
        await settle()
        clock.jump(15.0)
        wakeup.wake()
        await settle()
        source.limits = Limits(rates=Rates(read_bytes_per_s=5))
        wakeup.wake()
        await settle()
        watching.cancel()
    assert applied[0] == Rates()
    assert applied[-2:] == [Rates(network_bytes_per_s=7), Rates(read_bytes_per_s=5)]
