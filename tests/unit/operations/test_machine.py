"""The rules of the machine: every state has a next step, and every error a verdict."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.coordination.lease import HeldLease
from agent.errors import (
    ConfigError,
    Conflict,
    IntegrityError,
    LeaseLost,
    NodeUnavailable,
    NotFound,
    OperationCancelled,
    StorageFull,
    StorageUnavailable,
    StoreUnavailable,
)
from agent.operations.machine import (
    Step,
    Verdict,
    attempted,
    decide,
    error_record,
    patiently,
    quietly,
    retry_delay_s,
    verdict,
    watched,
)
from agent.wire.leases import TTL_S, Lease
from agent.wire.operations import TRANSITIONS, Kind, Operation, Part, State, may_move
from tests.support.manual_clock import ManualClock, settle

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def operation(state: State, *parts: Part, **fields: Any) -> Operation:
    return Operation(
        id="1" * 24,
        kind=Kind.BACKUP,
        name="b",
        requested_at=NOW,
        state=state,
        parts=parts,
        **fields,
    )


def part(state: State, replset: str = "rs0", epoch: int = 1) -> Part:
    return Part(replset=replset, state=state, epoch=epoch)


@pytest.mark.parametrize(
    ("found", "step"),
    [
        (operation(State.REQUESTED), Step.CHOOSE),
        (operation(State.ELECTING), Step.PREPARE),
        (operation(State.ELECTING, part(State.REQUESTED, epoch=0)), Step.AWAIT_WORKERS),
        (operation(State.ELECTING, part(State.PREPARING)), Step.PREPARE),
        (operation(State.PREPARING, part(State.PREPARING)), Step.RUN),
        (operation(State.RUNNING, part(State.RUNNING)), Step.AWAIT_WORK),
        (operation(State.RUNNING, part(State.DONE), part(State.RUNNING, "b")), Step.AWAIT_WORK),
        (operation(State.RUNNING, part(State.DONE), part(State.FAILED, "b")), Step.FAIL),
        (operation(State.ELECTING, part(State.FAILED)), Step.FAIL),
        (operation(State.RUNNING, part(State.DONE)), Step.PUBLISH),
        (operation(State.RUNNING), Step.PUBLISH),
        (operation(State.PUBLISHING), Step.FINISH),
        (operation(State.REQUESTED, cancel_requested=True), Step.CANCEL),
        (operation(State.RUNNING, part(State.DONE), cancel_requested=True), Step.CANCEL),
        (operation(State.PUBLISHING, cancel_requested=True), Step.FINISH),
        (operation(State.DONE), Step.STOP),
        (operation(State.FAILED), Step.STOP),
        (operation(State.CANCELLED, cancel_requested=True), Step.STOP),
    ],
    ids=lambda value: value.name if isinstance(value, Step) else f"{value.state}",
)
def test_every_state_has_its_step(found: Operation, step: Step) -> None:
    assert decide(found) is step


_AFTER = {
    Step.CANCEL: State.CANCELLED,
    Step.CHOOSE: State.ELECTING,
    Step.PREPARE: State.PREPARING,
    Step.RUN: State.RUNNING,
    Step.FAIL: State.FAILED,
    Step.PUBLISH: State.PUBLISHING,
    Step.FINISH: State.DONE,
}


@given(
    state=st.sampled_from(State),
    parts=st.lists(st.tuples(st.sampled_from(State), st.integers(0, 3)), max_size=4),
    cancel=st.booleans(),
)
def test_a_step_is_always_one_that_the_table_allows(
    state: State, parts: list[tuple[State, int]], cancel: bool
) -> None:
    found = operation(
        state,
        *(Part(replset=f"rs{i}", state=s, epoch=e) for i, (s, e) in enumerate(parts)),
        cancel_requested=cancel,
    )
    step = decide(found)
    if step in _AFTER:
        assert may_move(state, _AFTER[step])
    else:
        assert step is Step.STOP if state.is_terminal else not state.is_terminal
    if step is Step.PUBLISH:
        assert all(one.state is State.DONE for one in found.parts), "I1: all work is done"
        assert not cancel


def test_the_table_only_goes_forward_and_always_ends() -> None:
    order = list(State)
    for before, targets in TRANSITIONS.items():
        assert all(order.index(after) > order.index(before) for after in targets)
        assert bool(targets) is not before.is_terminal
        assert before.is_terminal or State.FAILED in targets
    assert State.CANCELLED not in TRANSITIONS[State.PUBLISHING]


class Model:
    """One operation, its lead and workers, any of which may die between two acts."""

    def __init__(self, chance: random.Random, replsets: int) -> None:
        self.chance = chance
        self.found = operation(State.REQUESTED)
        self.replsets = replsets
        self.published = 0
        self.part_epochs: list[int] = []

    def lead_acts(self) -> None:
        step = decide(self.found)
        if step is Step.CHOOSE:
            self._set(parts=tuple(part(State.REQUESTED, f"rs{i}", 0) for i in range(self.replsets)))
        if step is Step.FINISH:
            self.published += 1
            if self.chance.random() < 0.3:
                return  # dies after publishing, before it says so
        if step in _AFTER:
            assert may_move(self.found.state, _AFTER[step])
            self._set(state=_AFTER[step])

    def worker_acts(self, index: int) -> None:
        one = self.found.parts[index]
        workable = self.found.state in (State.ELECTING, State.PREPARING, State.RUNNING)
        if one.state.is_terminal or not workable or self.found.cancel_requested:
            return
        taken_over = one.epoch == 0 or self.chance.random() < 0.3
        if taken_over:
            self._part(index, state=State.PREPARING, epoch=one.epoch + 1)
        elif self.found.state is State.RUNNING:
            ends = [State.RUNNING, State.DONE, State.DONE, State.FAILED]
            self._part(index, state=self.chance.choice(ends))

    def _part(self, index: int, **changes: Any) -> None:
        parts = list(self.found.parts)
        assert changes.get("epoch", parts[index].epoch) >= parts[index].epoch
        parts[index] = parts[index].model_copy(update=changes)
        self._set(parts=tuple(parts))

    def _set(self, **changes: Any) -> None:
        self.found = self.found.model_copy(update=changes)


@given(seed=st.integers(0, 10**9), replsets=st.integers(0, 4), cancels=st.booleans())
def test_any_sequence_of_deaths_and_takeovers_ends_and_publishes_only_whole_work(
    seed: int, replsets: int, cancels: bool
) -> None:
    chance = random.Random(seed)
    model = Model(chance, replsets)
    for turn in range(400):
        if model.found.state.is_terminal:
            break
        if cancels and turn == 5 and model.found.state is not State.PUBLISHING:
            model.found = model.found.model_copy(update={"cancel_requested": True})
        actors = ["lead", *range(len(model.found.parts))]
        actor = chance.choice(actors)
        if isinstance(actor, int):
            model.worker_acts(actor)
        else:
            model.lead_acts()
    else:
        raise AssertionError(f"still {model.found.state} after 400 acts")
    if model.published:
        assert model.found.state is State.DONE
        assert all(one.state is State.DONE for one in model.found.parts)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OperationCancelled("by a person"), Verdict.CANCELLED),
        (LeaseLost("taken over"), Verdict.STOP),
        (IntegrityError("flipped"), Verdict.FAILED),
        (StorageFull("full"), Verdict.FAILED),
        (NotFound("no such backup"), Verdict.FAILED),
        (Conflict("busy"), Verdict.FAILED),
        (ConfigError("no storage"), Verdict.FAILED),
        (StorageUnavailable("away"), Verdict.RETRY),
        (StoreUnavailable("away"), Verdict.RETRY),
        (KeyError("a bug"), Verdict.RETRY),
        (TimeoutError(), Verdict.RETRY),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.name,
)
def test_every_branch_of_errors_has_a_verdict(error: Exception, expected: Verdict) -> None:
    assert verdict(error) is expected


def test_an_error_is_recorded_with_its_hint_and_node() -> None:
    record = error_record(StorageFull("no space left"), "rs0/a:1")
    assert (record.type, record.message, record.node) == ("StorageFull", "no space left", "rs0/a:1")
    assert "free space" in record.hint
    assert error_record(TimeoutError(), "n").message == "TimeoutError"


def test_attempts_are_made_at_growing_distances_within_bounds() -> None:
    delays = [retry_delay_s(attempts) for attempts in range(100)]
    assert delays[:4] == [0, 1, 2, 4]
    assert delays == sorted(delays)
    assert delays[-1] == 30


async def forever() -> None:
    await asyncio.Event().wait()


async def test_watched_work_answers_and_its_watch_ends() -> None:
    ended = False

    async def watch() -> None:
        nonlocal ended
        try:
            await forever()
        finally:
            ended = True

    async def work() -> int:
        await settle()
        return 42

    assert await watched(work, watch, within_s=5, what="it") == 42
    assert ended


async def test_what_the_watch_raises_ends_the_work() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await forever()
        finally:
            ended = True

    async def watch() -> None:
        await settle()
        raise OperationCancelled("by a person")

    with pytest.raises(OperationCancelled):
        await watched(work, watch, within_s=5, what="it")
    assert ended


async def test_an_error_of_watched_work_comes_out_as_it_is() -> None:
    async def work() -> None:
        raise IntegrityError("flipped") from OSError("underneath")

    with pytest.raises(IntegrityError) as caught:
        await watched(work, forever, within_s=5, what="it")
    assert isinstance(caught.value.__cause__, OSError)


async def test_watched_work_has_a_deadline_that_names_it() -> None:
    with pytest.raises(NodeUnavailable, match="choose took longer than"):
        await watched(forever, forever, within_s=0.01, what="choose")


async def test_work_that_is_done_in_time_is_not_lost_to_a_watch_that_ends_late() -> None:
    async def watch() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.05)

    async def work() -> int:
        await settle()
        return 42

    assert await watched(work, watch, within_s=0.02, what="it") == 42


async def test_a_timeout_of_the_works_own_is_not_the_deadline() -> None:
    async def work() -> None:
        raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        await watched(work, forever, within_s=5, what="it")


def held(clock: ManualClock) -> HeldLease:
    return HeldLease(Lease(id="s", owner="o", epoch=1, expires_at=NOW), clock)


async def test_a_control_write_is_repeated_while_the_lease_lasts() -> None:
    clock, calls = ManualClock(), 0

    async def call() -> str:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise StoreUnavailable("step-down")
        return "written"

    async with asyncio.TaskGroup() as group:
        task = group.create_task(patiently(held(clock), clock, call, what="write"))
        await clock.advance(TTL_S / 2)
        assert task.result() == "written"


async def test_a_control_write_is_given_up_with_the_lease() -> None:
    clock = ManualClock()

    async def call() -> None:
        raise StoreUnavailable("away")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(attempted(lambda: patiently(held(clock), clock, call, what="x")))
        await clock.advance(2 * TTL_S)
        assert isinstance(task.result(), LeaseLost)


async def test_a_control_write_that_is_refused_is_not_repeated() -> None:
    clock = ManualClock()

    async def call() -> None:
        raise Conflict("elsewhere")

    with pytest.raises(Conflict):
        await patiently(held(clock), clock, call, what="write")


@pytest.mark.parametrize(
    "error", [LeaseLost("gone"), StorageUnavailable("away"), KeyError("bug"), None]
)
async def test_a_session_never_takes_the_agent_down(error: Exception | None) -> None:
    async def session() -> None:
        if error is not None:
            raise error

    await quietly(session, what="test")


async def test_a_session_can_be_cancelled() -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(quietly(forever, what="test"))
        await settle()
        task.cancel()
        await settle()
        assert task.cancelled()
