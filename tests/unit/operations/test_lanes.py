"""The lanes of a replay together hold a bounded number of bytes that are not carried out yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agent.operations.restore import replaying
from agent.operations.restore.replaying import Lane
from agent.pipeline.budget import ByteBudget


async def test_a_large_operation_waits_until_others_are_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate, carried_out = asyncio.Event(), list[int]()

    async def apply_writes(_node: Any, operations: list[Any], *, is_lenient: bool) -> None:
        await gate.wait()
        carried_out.append(len(operations))

    async def keep() -> None:
        return

    monkeypatch.setattr(replaying, "apply_writes", apply_writes)
    job: Any = SimpleNamespace(node=None, pace=SimpleNamespace(keep=keep), check=lambda: None)
    budget = ByteBudget(100)
    first, second = Lane(job, budget), Lane(job, budget)
    document = b"\x3c\0\0\0" + b"\0" * 56
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for lane in (first, second):
            group.create_task(lane.run())
            lane.add(document, False)
        await first.send()
        waiting = group.create_task(second.send())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert budget.free_bytes == 40
        gate.set()
        await waiting
        for lane in (first, second):
            await lane.drain()
            await lane.close()
    assert carried_out == [1, 1]
    assert budget.free_bytes == 100
