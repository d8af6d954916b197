"""The channel: bounded, each item to one consumer, one close ends them all."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pipeline.channel import Channel


@settings(deadline=None)
@given(
    items=st.integers(0, 20),
    capacity=st.integers(1, 5),
    consumers=st.integers(1, 6),
)
async def test_one_close_ends_every_consumer_after_each_item_was_had_once(
    items: int, capacity: int, consumers: int
) -> None:
    channel: Channel[int] = Channel(capacity)
    had: list[int] = []

    async def consume() -> None:
        async for item in channel:
            had.append(item)  # several tasks append in turn
            await asyncio.sleep(0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for _ in range(consumers):
            group.create_task(consume())
        for item in range(items):
            await channel.put(item)
        await channel.close()
    assert sorted(had) == list(range(items))


async def test_a_full_channel_holds_the_producer_up() -> None:
    channel: Channel[int] = Channel(2)
    put: list[int] = []

    async def produce() -> None:
        for number in range(4):
            await channel.put(number)
            put.append(number)
        await channel.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        for _ in range(5):
            await asyncio.sleep(0)
        assert put == [0, 1]
        assert [item async for item in channel] == [0, 1, 2, 3]


async def test_a_consumer_that_comes_after_the_end_ends_at_once() -> None:
    channel: Channel[int] = Channel(1)
    await channel.close()
    async with asyncio.timeout(5):
        assert [item async for item in channel] == []
        assert [item async for item in channel] == []
