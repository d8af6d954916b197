"""When an agent looks, and what it tells the others of what it has seen."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from agent.coordination.wakeup import Wakeup
from agent.errors import PermissionDenied, StoreUnavailable, TidelogError
from agent.operations import runner
from agent.operations.runner import Runner, told_apart
from agent.wire.leases import Lease
from agent.wire.operations import Operation
from tests.support.manual_clock import ManualClock


def lease(scope: str, owner: str) -> Lease:
    return Lease(id=scope, owner=owner, epoch=7, expires_at=datetime(2026, 1, 1, tzinfo=UTC))


def test_a_look_that_is_older_than_the_end_leaves_it_to_the_next() -> None:
    ended = {"lead/reading", "work/rs0"}
    held = {"lead/reading": lease("lead/reading", "rs0/a:1")}
    free, unseen = told_apart(ended, held, "rs0/a:1")
    assert (free, unseen) == ({"work/rs0"}, {"lead/reading"})
    assert told_apart(unseen, {}, "rs0/a:1") == ({"lead/reading"}, set())


def test_what_another_has_taken_on_is_nobody_elses_to_hear_of() -> None:
    held = {"work/rs0": lease("work/rs0", "rs0/b:1")}
    assert told_apart({"work/rs0"}, held, "rs0/a:1") == (set(), set())


@pytest.mark.parametrize(
    ("problem", "poll_s"), [(StoreUnavailable("away"), 600.0), (PermissionDenied("no"), 0.01)]
)
async def test_a_look_that_fails_is_made_again(
    monkeypatch: pytest.MonkeyPatch, problem: TidelogError, poll_s: float
) -> None:
    """Before the poll, if that may help: it may have been the wake-up's, and that does not come
    twice."""
    monkeypatch.setattr(runner, "LOOK_AGAIN_S", 0.01)
    looked = asyncio.Event()
    answers: list[Exception | None] = [problem, None]

    async def active() -> list[Operation]:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        looked.set()
        return []

    operations = SimpleNamespace(active=active)
    node = SimpleNamespace(id="rs0/a:1", replset="rs0")
    services: Any = SimpleNamespace(operations=operations, node=node, clock=ManualClock())
    unused: Any = None
    tried = Runner(services, {}, unused, Wakeup(poll_s=poll_s), lead_replset="rs0")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(tried.run())
        await looked.wait()
        task.cancel()
