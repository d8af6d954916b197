"""The read model: read once for all who ask, and served with its age when it cannot be read."""

from __future__ import annotations

import asyncio

from agent.errors import NodeUnavailable, StoreUnavailable
from agent.web.model import FRESH_S, ReadModel
from agent.wire.optime import OpTime
from agent.wire.overview import Overview
from tests.support.manual_clock import ManualClock
from tests.support.overviews import good, optime, view_of


class Source:
    def __init__(self) -> None:
        self.reads = 0
        self.fails = False

    async def overview(self) -> Overview:
        self.reads += 1
        await asyncio.sleep(0)
        if self.fails:
            raise StoreUnavailable("no primary")
        return good()

    async def oplog(self) -> tuple[OpTime, OpTime]:
        if self.fails:
            raise NodeUnavailable("down")
        return optime(100), optime(0)


def model(source: Source, clock: ManualClock) -> ReadModel:
    return ReadModel(view_of(None).local, source.overview, source.oplog, clock)


async def test_many_who_ask_at_once_cost_one_reading() -> None:
    source, clock = Source(), ManualClock()
    one = model(source, clock)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(one.view())
    assert source.reads == 1
    clock.now_s += FRESH_S
    await one.view()
    assert source.reads == 2


async def test_what_cannot_be_read_anew_is_shown_with_its_age() -> None:
    source, clock = Source(), ManualClock()
    one = model(source, clock)
    assert (await one.view()).age_s == 0
    source.fails = True
    clock.now_s += 30
    view = await one.view()
    assert view.overview is not None
    assert (view.age_s, view.error, view.oplog) == (30, "no primary", None)
    assert view.safety is not None
    assert view.safety.rpo_s == 38


async def test_a_silent_database_is_not_asked_by_each_scrape() -> None:
    source, clock = Source(), ManualClock()
    source.fails = True
    one = model(source, clock)
    for _ in range(5):
        assert (await one.view()).overview is None
    assert source.reads == 1
