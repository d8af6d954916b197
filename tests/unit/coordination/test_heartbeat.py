"""One agent a node, and a heartbeat that tells what the node is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from agent.coordination.heartbeat import COPIED_BY_EVERY_S, Condition, Heartbeat
from agent.coordination.lease import Holder
from agent.errors import (
    ConfigError,
    Conflict,
    LeaseLost,
    NodeUnavailable,
    PermissionDenied,
    StoreUnavailable,
    TidelogError,
)
from agent.mongo.translate import CommandFailed
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.wire.leases import TTL_S, Lease
from agent.wire.nodes import NodeStatus, Role
from tests.support.eventually import eventually_async
from tests.support.manual_clock import ManualClock, settle

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeControl:
    """Registry and lease store of one node, in the time of a manual clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.owner: str | None = None
        self.epoch = 0
        self.expires_s = 0.0
        self.beats: list[NodeStatus] = []
        self.said_goodbye: list[str] = []
        self.unavailable = False
        self.refusal: TidelogError | None = None

    def _check(self) -> None:
        if self.unavailable:
            raise StoreUnavailable("away")
        if self.refusal is not None:
            raise self.refusal

    def _lease(self) -> Lease:
        return Lease(
            id="node/rs0/a:1",
            owner=self.owner,
            epoch=self.epoch,
            expires_at=START + timedelta(seconds=self.expires_s),
            asked_at=self.clock.monotonic(),
        )

    def seize(self, owner: str) -> None:
        self.owner, self.epoch = owner, self.epoch + 1
        self.expires_s = self.clock.monotonic() + TTL_S

    async def acquire(self, scope: str, owner: str, ttl_s: float = TTL_S) -> Lease | None:
        self._check()
        if self.owner is not None and self.expires_s > self.clock.monotonic():
            return None
        self.seize(owner)
        return self._lease()

    async def renew(self, lease: Lease, ttl_s: float = TTL_S) -> Lease:
        self._check()
        if (lease.owner, lease.epoch) != (self.owner, self.epoch):
            raise LeaseLost(f"taken over by {self.owner}")
        self.expires_s = self.clock.monotonic() + ttl_s
        return self._lease()

    async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
        (lease,) = leases
        self._check()
        if (lease.owner, lease.epoch) != (self.owner, self.epoch):
            return False
        self.expires_s = self.clock.monotonic() + ttl_s
        return True

    async def release(self, lease: Lease) -> None:
        self._check()
        self.owner = None

    async def read(self, scope: str) -> Lease | None:
        self._check()
        return self._lease()

    async def heartbeat(self, status: NodeStatus) -> None:
        self._check()
        self.beats.append(status)

    async def say_goodbye(self, node: str) -> None:
        self._check()
        self.said_goodbye.append(node)


class FakeNode:
    id = "rs0/a:1"
    host = "a:1"
    replset = "rs0"
    mongodb_version = "6.0.5"
    role = Role.SECONDARY
    problem: TidelogError | None = None
    refuses: TidelogError | None = None
    asked = 0

    async def status(self) -> tuple[Role, float, str]:
        if self.problem is not None:
            raise self.problem
        return self.role, 1.5, self.mongodb_version

    async def copied_by(self) -> int:
        self.asked += 1
        if self.refuses is not None:
            raise self.refuses
        return 2


def heartbeat(control: FakeControl, node: FakeNode | None = None) -> Heartbeat:
    return Heartbeat(
        node or FakeNode(),
        cast(NodeRegistry, control),
        cast(LeaseStore, control),
        Holder(cast(LeaseStore, control), control.clock),
        control.clock,
        Condition(features=("kind:backup",)),
    )


@asynccontextmanager
async def running(beat: Heartbeat) -> AsyncIterator[asyncio.Task[BaseException | None]]:
    async def run() -> BaseException | None:
        try:
            await beat.run(await beat.claim())
        except Exception as error:
            return error
        return None

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        await settle()
        yield task
        task.cancel()


async def test_a_heartbeat_tells_role_lag_and_features() -> None:
    control = FakeControl(ManualClock())
    async with running(heartbeat(control)):
        beat = control.beats[0]
    assert (beat.id, beat.role, beat.lag_s) == ("rs0/a:1", Role.SECONDARY, 1.5)
    assert beat.features == ("kind:backup",)
    assert beat.rss_bytes > 1 << 20


async def test_a_heartbeat_of_a_secondary_tells_how_many_copy_from_it() -> None:
    control = FakeControl(ManualClock())
    node = FakeNode()
    beat = heartbeat(control, node)
    async with running(beat):
        node.role = Role.PRIMARY
        beat.condition.changed.set()
        await settle()
    assert [beat.copied_by for beat in control.beats] == [2, 0]


async def beaten_with(error: TidelogError) -> tuple[FakeNode, list[int]]:
    """A node that is asked once, refuses once, and would answer after that."""
    clock = ManualClock()
    control, node = FakeControl(clock), FakeNode()
    beat = heartbeat(control, node)
    async with running(beat) as task:
        for node.refuses in (error, None):
            await clock.advance(COPIED_BY_EVERY_S)
            beat.condition.changed.set()
            await settle()
        assert not task.done()
    return node, [beat.copied_by for beat in control.beats]


async def test_who_may_not_ask_who_copies_any_more_asks_no_more_and_forgets() -> None:
    node, told = await beaten_with(PermissionDenied("not authorized"))
    assert told == [2, 0, 0]
    assert node.asked == 2


@pytest.mark.parametrize(
    "error",
    [CommandFailed("no", code=1), ConfigError("the login is refused"), NodeUnavailable("away")],
)
async def test_whatever_else_asking_who_copies_meets_it_is_asked_again(error: TidelogError) -> None:
    node, told = await beaten_with(error)
    assert told == [2, 2, 2]
    assert node.asked == 3


async def test_what_changed_is_told_at_once() -> None:
    control = FakeControl(ManualClock())
    beat = heartbeat(control)
    async with running(beat):
        beat.condition.storage_error = "no space left"
        beat.condition.changed.set()

        async def told() -> bool:
            return control.beats[-1].storage_error == "no space left"

        await eventually_async(told, within_s=1.0)


@pytest.mark.parametrize("problem", [NodeUnavailable("away"), ConfigError("the login is refused")])
async def test_a_node_that_does_not_answer_is_told_as_down_with_the_reason(
    problem: TidelogError,
) -> None:
    control, node = FakeControl(ManualClock()), FakeNode()
    node.problem = problem
    async with running(heartbeat(control, node)):
        assert control.beats[0].role is Role.DOWN
        assert control.beats[0].errors == (str(problem),)


async def test_a_second_agent_is_refused_as_soon_as_the_first_renews() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    control.seize("the other one")
    async with running(heartbeat(control)) as task:
        await clock.advance(1.0)
        assert not task.done(), "it may be dead: nobody has renewed yet"
        control.expires_s += 3.0
        await clock.advance(1.0)
        assert isinstance(task.result(), Conflict)
        assert "the other one" in str(task.result())


async def test_the_lease_of_a_dead_agent_is_taken_when_it_lapses() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    control.seize("the dead one")
    async with running(heartbeat(control)) as task:
        await clock.advance(TTL_S + 1)
        assert not task.done()
        assert control.epoch == 2
        assert control.beats


async def test_an_agent_that_was_stopped_goes_on_if_nobody_has_its_node() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    async with running(heartbeat(control)) as task:
        clock.jump(3 * TTL_S)
        await clock.advance(TTL_S)
        assert not task.done()
        assert control.epoch == 2, "a new incarnation"


async def test_an_agent_that_was_stopped_ends_if_another_has_its_node() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    async with running(heartbeat(control)) as task:
        clock.jump(3 * TTL_S)
        control.seize("the successor")
        for _ in range(8):
            await clock.advance(1.0)
            control.expires_s = clock.monotonic() + TTL_S
        assert isinstance(task.result(), Conflict)


async def test_without_a_control_database_for_too_long_the_agent_ends() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    async with running(heartbeat(control)) as task:
        control.unavailable = True
        await clock.advance(50.0)
        assert not task.done()
        await clock.advance(20.0)
        assert isinstance(task.result(), StoreUnavailable)


async def test_a_short_absence_of_the_control_database_is_waited_out() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    async with running(heartbeat(control)) as task:
        control.unavailable = True
        await clock.advance(30.0)
        control.unavailable = False
        await clock.advance(2 * TTL_S)
        assert not task.done()


async def test_a_right_that_is_taken_away_for_a_short_time_is_waited_for() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    async with running(heartbeat(control)) as task:
        control.refusal = PermissionDenied("not authorized")
        await clock.advance(30.0)
        control.refusal = None
        beats = len(control.beats)
        await clock.advance(2 * TTL_S)
        assert not task.done()
        assert len(control.beats) > beats


async def test_a_right_that_is_taken_away_for_too_long_ends_the_agent_by_its_name() -> None:
    clock = ManualClock()
    control = FakeControl(clock)
    async with running(heartbeat(control)) as task:
        control.refusal = PermissionDenied("not authorized")
        await clock.advance(70.0)
        assert task.result() is control.refusal


async def test_an_agent_without_rights_does_not_begin() -> None:
    control = FakeControl(ManualClock())
    control.refusal = PermissionDenied("not authorized")
    async with running(heartbeat(control)) as task:
        assert task.result() is control.refusal


@pytest.mark.parametrize("unavailable", [False, True])
async def test_goodbye_never_fails(unavailable: bool) -> None:
    control = FakeControl(ManualClock())
    control.unavailable = unavailable
    await heartbeat(control).goodbye()
    assert control.said_goodbye == ([] if unavailable else ["rs0/a:1"])
