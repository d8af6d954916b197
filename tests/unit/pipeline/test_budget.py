"""The byte budget: never exceeded, served in order, nothing lost to cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pipeline.budget import ByteBudget

_TOTAL = 100


async def _turn(times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_waiters_are_served_in_order_and_a_large_one_is_not_starved() -> None:
    budget = ByteBudget(_TOTAL)
    served: list[str] = []
    go_on = asyncio.Event()

    async def hold(name: str, size: int) -> None:
        async with budget.take(size):
            served.append(name)
            await go_on.wait()

    async with asyncio.TaskGroup() as group:
        for name, size in [("first", 60), ("large", 90), ("small", 5), ("last", 40)]:
            group.create_task(hold(name, size))
        await _turn(3)
        assert served == ["first"], "a small request overtook a large one that waits"
        go_on.set()
    assert served == ["first", "large", "small", "last"]
    assert budget.free_bytes == _TOTAL


async def test_a_request_above_the_budget_gets_all_of_it() -> None:
    budget = ByteBudget(_TOTAL)
    async with budget.take(10 * _TOTAL):
        assert budget.free_bytes == 0
    assert budget.free_bytes == _TOTAL


async def test_an_error_inside_gives_the_bytes_back() -> None:
    budget = ByteBudget(_TOTAL)
    try:
        async with budget.take(70):
            raise LookupError
    except LookupError:
        assert budget.free_bytes == _TOTAL


async def test_a_waiter_cancelled_in_the_moment_it_is_served_gives_the_bytes_on() -> None:
    budget = ByteBudget(_TOTAL)
    served: list[str] = []

    async def hold(name: str) -> None:
        async with budget.take(_TOTAL):
            served.append(name)

    async with asyncio.TaskGroup() as group:
        async with budget.take(_TOTAL):
            unlucky = group.create_task(hold("unlucky"))
            group.create_task(hold("next"))
            await _turn()
        # The bytes are granted to the first waiter, which has not run since.
        unlucky.cancel()
    assert served == ["next"]
    assert budget.free_bytes == _TOTAL


async def test_a_cancelled_large_waiter_no_longer_holds_up_the_small_ones_behind_it() -> None:
    budget = ByteBudget(_TOTAL)
    served = asyncio.Event()

    async def hold_small() -> None:
        async with budget.take(10):
            served.set()

    async def hold_large() -> None:
        async with budget.take(90):
            raise AssertionError

    async with asyncio.TaskGroup() as group, budget.take(50):
        large = group.create_task(hold_large())
        group.create_task(hold_small())
        await _turn(2)
        assert not served.is_set()
        large.cancel()
        await _turn(3)
        assert served.is_set()


_REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 2 * _TOTAL),  # size
        st.integers(0, 4),  # turns before asking
        st.integers(0, 4),  # turns of holding
        st.none() | st.integers(0, 9),  # turns until cancelled
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=200)
@given(requests=_REQUESTS)
async def test_whatever_is_cancelled_the_budget_is_never_exceeded_and_nothing_leaks(
    requests: list[tuple[int, int, int, int | None]],
) -> None:
    budget = ByteBudget(_TOTAL)
    held: list[int] = []

    async def work(size: int, before: int, during: int) -> None:
        await _turn(before)
        async with budget.take(size):
            held.append(min(size, _TOTAL))
            try:
                assert sum(held) <= _TOTAL
                assert budget.free_bytes >= 0
                await _turn(during)
            finally:
                held.remove(min(size, _TOTAL))

    async def cancel(task: asyncio.Task[Any], after: int) -> None:
        await _turn(after)
        task.cancel()

    async with asyncio.TaskGroup() as group:
        for size, before, during, cancelled in requests:
            task = group.create_task(work(size, before, during))
            if cancelled is not None:
                group.create_task(cancel(task, cancelled))
    assert budget.free_bytes == _TOTAL


@settings(deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 2 * _TOTAL), st.integers(0, 3)), max_size=10))
async def test_those_that_wait_are_served_in_the_order_of_asking(
    sizes: list[tuple[int, int]],
) -> None:
    budget = ByteBudget(_TOTAL)
    served: list[int] = []

    async def hold(number: int, size: int, during: int) -> None:
        async with budget.take(size):
            served.append(number)
            await _turn(during)

    async with asyncio.TaskGroup() as group, budget.take(_TOTAL):
        for number, (size, during) in enumerate(sizes):
            group.create_task(hold(number, max(1, size), during))
        await _turn()
    assert served == list(range(len(sizes)))
