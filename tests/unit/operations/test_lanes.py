"""A replay holds a bounded number of bytes: of slices read ahead, and of what its lanes have not
carried out yet."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.operations.restore import replaying
from agent.operations.restore.job import Tally
from agent.operations.restore.replaying import Lane, Replayer
from agent.operations.restore.state import Stage
from agent.pipeline.budget import ByteBudget


async def test_a_large_operation_waits_until_others_are_carried_out() -> None:
    gate, carried_out = asyncio.Event(), list[int]()

    async def apply(operations: list[Any], *, is_lenient: bool) -> None:
        await gate.wait()
        carried_out.append(len(operations))

    async def keep() -> None:
        return

    job: Any = SimpleNamespace(pace=SimpleNamespace(keep=keep), apply=apply)
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


async def test_slices_of_large_documents_are_read_ahead_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replaying, "AHEAD_BYTES", 100)
    held, most = 0, list[int]()

    async def slice_entries(_storage: Any, item: Any) -> list[bytes]:
        nonlocal held
        held += item.plain_bytes
        most.append(held)
        return [bytes(20)] * (item.plain_bytes // 20)

    def interpret(frame: bytes) -> list[Any]:
        nonlocal held
        held -= len(frame)
        return []

    monkeypatch.setattr(replaying, "slice_entries", slice_entries)
    interpreter = SimpleNamespace(
        is_done=False, interpret=interpret, finish=lambda: (), undecided=lambda: ()
    )
    state = SimpleNamespace(stage=Stage.LOADED)
    job: Any = SimpleNamespace(
        clock=SimpleNamespace(monotonic=lambda: 0.0),
        keeper=SimpleNamespace(state=state, warn=lambda: None),
        tuning=SimpleNamespace(appliers=1),
        base=SimpleNamespace(evidence=None),
        tally=Tally(),
        storage=None,
    )
    sizes = [40] * 20 + [240, 60]
    slices: Any = [SimpleNamespace(plain_bytes=size) for size in sizes]
    async with asyncio.timeout(5):
        await Replayer(job, slices, cast(Any, interpreter)).run()
    assert job.tally.bytes_done == sum(sizes)
    assert max(most[:20]) == 80, "the next one is read while one is replayed, and no third"
    assert most[20] == 240, "one larger than the bound is read when nothing else is held"
