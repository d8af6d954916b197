"""A cancellation is never lost in a group that ends by an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.errors import StorageUnavailable
from agent.operations.machine import watched
from agent.tasks import TaskGroup

Group = Callable[["Slow"], Awaitable[None]]


class Slow:
    """What takes a moment to end when it is cancelled, and says that it has begun to."""

    def __init__(self) -> None:
        self.ending = asyncio.Event()
        self.may_end = asyncio.Event()

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await self.may_end.wait()

    async def cancel(self, task: asyncio.Task[object]) -> None:
        """Cancel the task just then."""
        await self.ending.wait()
        task.cancel()
        await asyncio.sleep(0)
        self.may_end.set()
        await asyncio.wait([task])


async def fail() -> None:
    raise StorageUnavailable("away")


async def fail_in_body(slow: Slow) -> None:
    async with TaskGroup() as group:
        group.create_task(slow.run())
        await asyncio.sleep(0)
        await fail()


async def fail_in_task(slow: Slow) -> None:
    async with TaskGroup() as group:
        group.create_task(slow.run())
        await asyncio.sleep(0)
        group.create_task(fail())
        await asyncio.Event().wait()


async def fail_after_body(slow: Slow) -> None:
    async with TaskGroup() as group:
        group.create_task(slow.run())
        await asyncio.sleep(0)
        group.create_task(fail())


GROUPS = [fail_in_body, fail_in_task, fail_after_body]


@pytest.mark.parametrize("group", GROUPS)
async def test_a_task_that_is_cancelled_while_its_group_fails_ends(group: Group) -> None:
    slow = Slow()

    async def for_ever() -> None:
        for _ in range(3):
            try:
                await group(slow)
            except BaseExceptionGroup:
                continue

    async with asyncio.TaskGroup() as outer:
        task = outer.create_task(for_ever())
        async with asyncio.timeout(5):
            await slow.cancel(task)
    assert task.cancelled()


@pytest.mark.parametrize("group", GROUPS)
async def test_without_a_cancellation_the_errors_come_out(group: Group) -> None:
    slow = Slow()
    slow.may_end.set()
    with pytest.raises(BaseExceptionGroup, match="TaskGroup") as caught:
        await group(slow)
    assert [type(error) for error in caught.value.exceptions] == [StorageUnavailable]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0, "nobody cancelled it"


async def test_a_task_that_fails_as_its_group_is_cancelled_does_not_hide_it() -> None:
    async def fail_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await fail()

    async def in_group() -> None:
        async with TaskGroup() as group:
            group.create_task(fail_when_cancelled())
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as outer:
        task = outer.create_task(in_group())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def test_a_deadline_that_passes_while_a_group_fails_is_told_as_such() -> None:
    slow = Slow()

    async def for_long() -> None:
        async with asyncio.timeout(0.01):
            asyncio.get_running_loop().call_later(0.05, slow.may_end.set)
            await fail_in_body(slow)

    with pytest.raises(TimeoutError):
        await for_long()


async def test_work_that_ends_in_the_moment_of_a_stop_stops() -> None:
    slow = Slow()

    async def work() -> int:
        await asyncio.sleep(0)
        return 1

    async with asyncio.TaskGroup() as outer:
        task = outer.create_task(watched(work, slow.run, within_s=60, what="work"))
        await slow.cancel(task)
    assert task.cancelled()
