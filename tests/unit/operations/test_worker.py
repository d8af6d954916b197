"""What a worker writes of its part when it is stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from agent.clock import Clock, SystemClock
from agent.coordination.lease import HeldLease
from agent.errors import NodeUnavailable, StorageUnavailable, Transient
from agent.operations import worker as module
from agent.operations.board import Board
from agent.operations.worker import RoleLost, Worker
from agent.tasks import TaskGroup
from agent.wire.leases import Lease
from agent.wire.nodes import Role
from agent.wire.operations import Kind, Operation, Part, State
from tests.support.manual_clock import ManualClock, settle

START = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """The operation log of one part."""

    def __init__(self) -> None:
        self.unanswered = ""
        self.reached = asyncio.Event()
        self.written: list[str] = []
        self.operation = Operation(
            id="a" * 24,
            kind=Kind.BACKUP,
            name="n",
            state=State.RUNNING,
            spec={},
            requested_at=START,
            parts=(Part(replset="rs0", epoch=3, state=State.PREPARING, attempts=1),),
        )

    async def take_part(self, *_: Any) -> Operation:
        return self.operation

    async def update_part(self, *_: Any, note: str | None = None, **changes: Any) -> Operation:
        return await self._write(note or str(changes["state"]))

    async def hand_over_part(self, *_: Any, note: str) -> Operation:
        return await self._write(note)

    async def _write(self, what: str) -> Operation:
        self.written.append(what)
        if what == self.unanswered:
            self.reached.set()
            await asyncio.Event().wait()
        return self.operation


class Failing:
    """A kind whose work fails beside a task that takes a moment to end."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.ending = asyncio.Event()
        self.may_end = asyncio.Event()

    async def work(self, _part: Any) -> dict[str, Any]:
        async with TaskGroup() as group:
            group.create_task(self._linger())
            await asyncio.sleep(0)
            raise self._error

    async def _linger(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await self.may_end.wait()


def worker(log: Log, kind: Any, *, node: Any = None, clock: Clock | None = None) -> Worker:
    clock = clock or ManualClock()
    lease = Lease(id="work/rs0", owner="rs0/a:1", epoch=3, expires_at=START)
    node = node or SimpleNamespace(id="rs0/a:1", replset="rs0", host="a:1")
    services: Any = SimpleNamespace(clock=clock, node=node, operations=log)
    board, held = Board(), HeldLease(lease, clock)
    board.publish([log.operation], {})
    return Worker(services, kind, board, held, log.operation)


async def cancelled(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()


async def stopped_while_it_writes(log: Log, kind: Failing) -> None:
    """The worker is cancelled as what `log` leaves unanswered is being written."""
    kind.may_end.set()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker(log, kind).run())
        await log.reached.wait()
        task.cancel()
        await cancelled(task)


async def test_a_stop_while_the_work_fails_is_no_failed_attempt() -> None:
    log, kind = Log(), Failing(StorageUnavailable("away"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker(log, kind).run())
        await kind.ending.wait()
        task.cancel()
        await settle()
        kind.may_end.set()
        await cancelled(task)
    assert log.written[-1] == "handed over: the agent stops"


async def test_nor_is_one_while_the_failure_is_written() -> None:
    log, kind = Log(), Failing(StorageUnavailable("away"))
    log.unanswered = "attempt 1 failed: away"
    await stopped_while_it_writes(log, kind)
    assert log.written[-2:] == [log.unanswered, "handed over: the agent stops"]


class Unsettled:
    """The node of a restore: what it answers when it is asked for its role, the last for ever."""

    id, replset, host = "rs0/a:1", "rs0", "a:1"

    def __init__(self, *answers: Role | Exception) -> None:
        self._answers = list(answers)
        self.settled = asyncio.Event()

    async def status(self) -> tuple[Role, float, str]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        self.settled.set()
        return answer, 0.0, "6.0.5"


class Restoring:
    """A kind whose work lasts until the node has said what it is."""

    def __init__(self, node: Unsettled) -> None:
        self._node = node

    async def work(self, _part: Any) -> dict[str, Any]:
        await self._node.settled.wait()
        await asyncio.sleep(0.05)
        return {}


async def restored(monkeypatch: pytest.MonkeyPatch, *answers: Role | Exception) -> list[str]:
    """What is written of a part of a restore whose node answers so."""
    monkeypatch.setattr(module, "ROLE_EVERY_S", 0.01)
    monkeypatch.setattr(module, "ROLE_UNKNOWN_FOR_S", 0.2)
    log, node = Log(), Unsettled(*answers)
    log.operation = log.operation.model_copy(update={"kind": Kind.RESTORE})
    tried = worker(log, Restoring(node), node=node, clock=SystemClock())
    async with asyncio.timeout(10):
        with suppress(Transient):
            await tried.run()
    return log.written


async def test_a_node_that_once_does_not_say_what_it_is_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = NodeUnavailable("busy")
    assert (await restored(monkeypatch, silent, silent, Role.PRIMARY))[-1] == "done"


async def test_a_node_that_does_not_say_for_long_what_it_is_ends_the_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = await restored(monkeypatch, NodeUnavailable("away"))
    assert written[-1] == "attempt 1 failed: away"


async def test_a_node_that_is_the_primary_no_more_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = await restored(monkeypatch, NodeUnavailable("busy"), Role.SECONDARY)
    assert written[-1] == "handed over: a:1 is not the primary any more"


async def test_a_part_that_is_being_handed_over_is_not_handed_over_again() -> None:
    """Each time would take an attempt away."""
    log, kind = Log(), Failing(RoleLost("a:1 is not the primary any more"))
    log.unanswered = "handed over: a:1 is not the primary any more"
    await stopped_while_it_writes(log, kind)
    assert log.written[-1] == log.unanswered
