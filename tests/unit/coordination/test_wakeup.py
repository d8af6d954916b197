"""Waking up: no change is missed, nothing waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agent.coordination.wakeup import Wakeup, feed
from tests.support.manual_clock import settle


class FakeCommands:
    def __init__(self, *commands: dict[str, Any] | None) -> None:
        self._commands = commands

    async def watch(self) -> AsyncIterator[dict[str, Any] | None]:
        for command in self._commands:
            yield command


async def test_the_first_wait_does_not_wait() -> None:
    async with asyncio.timeout(1):
        await Wakeup(poll_s=60).wait()


async def test_what_happens_after_clearing_is_not_missed() -> None:
    wakeup = Wakeup(poll_s=60)
    wakeup.clear()
    wakeup.wake()  # while the waiter reads and acts
    async with asyncio.timeout(1):
        await wakeup.wait()


async def test_without_a_wake_up_it_polls() -> None:
    wakeup = Wakeup(poll_s=0.02)
    wakeup.clear()
    async with asyncio.timeout(1):
        await wakeup.wait()


async def test_a_shorter_wait_can_be_asked_for() -> None:
    wakeup = Wakeup(poll_s=60)
    wakeup.clear()
    async with asyncio.timeout(1):
        await wakeup.wait(0.02)


async def test_what_concerns_operations_wakes_only_those_who_want_it() -> None:
    all_, general = Wakeup(poll_s=60), Wakeup(poll_s=60, operations=False)
    all_.clear()
    general.clear()
    await feed(FakeCommands({"op_id": "1"}), all_, general)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(all_.wait())
        second = group.create_task(general.wait())
        await settle()
        assert first.done()
        assert not second.done()
        await feed(FakeCommands({"op_id": None}), all_, general)


async def test_a_break_wakes_everybody() -> None:
    general = Wakeup(poll_s=60, operations=False)
    general.clear()
    await feed(FakeCommands(None), general)
    async with asyncio.timeout(1):
        await general.wait()
