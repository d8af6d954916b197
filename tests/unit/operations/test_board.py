"""The board: who waits sees the next look, and never misses one."""

from __future__ import annotations

import asyncio

from agent.operations.board import Board
from tests.support.manual_clock import settle


async def test_a_look_wakes_everybody_who_waits() -> None:
    board = Board()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(board.after(0, at_most_s=60)) for _ in range(3)]
        await settle()
        assert not any(task.done() for task in waiting)
        board.ask()
        board.publish([], {})


async def test_a_look_that_was_missed_is_not_waited_for() -> None:
    board = Board()
    board.ask()
    board.publish([], {})
    async with asyncio.timeout(1):
        await board.after(0, at_most_s=60)


async def test_waiting_has_an_end() -> None:
    async with asyncio.timeout(1):
        await Board().after(0, at_most_s=0.01)
