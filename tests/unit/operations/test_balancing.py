"""Putting the balancer back for those that did not live to, whatever keeps an agent from it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import ConfigError, PermissionDenied, StoreUnavailable, TidelogError
from agent.operations.balancing import REFUSED_AGAIN_S, BalancerKeeper
from tests.support.manual_clock import ManualClock


@pytest.mark.parametrize(
    "problem",
    [StoreUnavailable("away"), PermissionDenied("not authorized"), ConfigError("no login")],
)
async def test_a_balancer_that_cannot_be_looked_at_ends_nothing(problem: TidelogError) -> None:
    answers: list[TidelogError | None] = [problem, None]

    async def tidy(_: Any) -> None:
        if answers and (answer := answers.pop(0)) is not None:
            raise answer

    clock = ManualClock()
    node, balancer = SimpleNamespace(is_config=True), SimpleNamespace(tidy=tidy)
    services: Any = SimpleNamespace(node=node, balancer=balancer)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(BalancerKeeper(services, clock).run())
        await clock.advance(2 * REFUSED_AGAIN_S)
        assert not task.done()
        task.cancel()
    assert not answers
