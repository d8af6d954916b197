"""Holding a lease: renewed in time, lost before it can lapse, given back at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from agent.clock import Clock, SystemClock
from agent.coordination.lease import HeldLease, hold
from agent.errors import IntegrityError, LeaseLost, StorageUnavailable, StoreUnavailable
from agent.wire.leases import MARGIN_S, RENEW_EVERY_S, TTL_S, Lease
from tests.support.manual_clock import ManualClock, settle


class FakeLeases:
    """A lease store that answers as told."""

    def __init__(self) -> None:
        self.renewals = 0
        self.released: list[str] = []
        self.answer: Exception | None = None
        self.hangs = False

    async def renew(self, lease: Lease, ttl_s: float = TTL_S) -> Lease:
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer is not None:
            raise self.answer
        self.renewals += 1
        return lease

    async def release(self, lease: Lease) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.answer, StoreUnavailable):
            raise self.answer
        self.released.append(lease.id)


def lease(clock: Clock, *, asked_ago_s: float = 0.0) -> Lease:
    return Lease(
        id="work/rs0",
        owner="rs0/a:1",
        epoch=7,
        expires_at=datetime(2026, 1, 1, tzinfo=UTC),
        asked_at=clock.monotonic() - asked_ago_s,
    )


Task = asyncio.Task[BaseException | None]


@asynccontextmanager
async def body(store: FakeLeases, clock: Clock) -> AsyncIterator[tuple[Task, list[HeldLease]]]:
    """A task that holds a lease for ever; its result is what ended it."""
    held: list[HeldLease] = []

    async def work() -> BaseException | None:
        try:
            async with hold(store, lease(clock), clock) as one:
                held.append(one)
                await asyncio.Event().wait()
        except Exception as error:
            return error
        return None

    async with asyncio.TaskGroup() as group:
        task = group.create_task(work())
        await settle()
        yield task, held
        task.cancel()


async def test_a_lease_is_renewed_for_as_long_as_the_body_runs() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, held):
        await clock.advance(60 * TTL_S)
        assert not task.done()
        held[0].check()
        assert store.renewals >= 60 * TTL_S / (RENEW_EVERY_S * 1.3)


async def test_a_body_that_ends_gives_the_lease_back() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with hold(store, lease(clock), clock) as held:
        assert (held.scope, held.owner, held.epoch) == ("work/rs0", "rs0/a:1", 7)
    assert store.released == ["work/rs0"]


async def test_an_error_of_the_body_comes_out_as_it_is_and_the_lease_is_given_back() -> None:
    store, clock = FakeLeases(), ManualClock()
    with pytest.raises(IntegrityError, match="flipped") as caught:
        async with hold(store, lease(clock), clock):
            raise IntegrityError("flipped") from OSError("underneath")
    assert isinstance(caught.value.__cause__, OSError)
    assert store.released == ["work/rs0"]


async def test_of_several_errors_the_one_to_record_comes_out() -> None:
    store, clock = FakeLeases(), ManualClock()

    async def fail(error: Exception) -> None:
        raise error

    async def fail_twice() -> None:
        async with hold(store, lease(clock), clock), asyncio.TaskGroup() as group:
            group.create_task(fail(StorageUnavailable("away")))
            group.create_task(fail(IntegrityError("flipped")))

    with pytest.raises(IntegrityError) as caught:
        await fail_twice()
    assert any("away" in note for note in caught.value.__notes__)


async def test_cancelling_the_body_gives_the_lease_back() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, _):
        task.cancel()
        await settle()
        assert task.cancelled()
        assert store.released == ["work/rs0"]


async def test_a_taken_lease_stops_the_body_and_is_not_released() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, held):
        store.answer = LeaseLost("taken over by rs0/b:1")
        await clock.advance(RENEW_EVERY_S * 1.3)
        assert task.done()
        assert isinstance(task.result(), LeaseLost)
        assert "taken over" in str(task.result())
        with pytest.raises(LeaseLost, match="taken over"):
            held[0].check()
        assert store.released == []


async def test_an_unreachable_store_stops_the_body_before_the_lease_can_lapse() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, _):
        started = clock.monotonic()
        store.answer = StoreUnavailable("away")
        while not task.done() and clock.monotonic() - started < 2 * TTL_S:
            await clock.advance(0.1)
        assert isinstance(task.result(), LeaseLost)
        assert "in time" in str(task.result())
        assert clock.monotonic() - started <= TTL_S - MARGIN_S + 0.2
        assert store.released == []


async def test_a_store_that_hangs_is_no_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.coordination.lease.TTL_S", 0.5)
    monkeypatch.setattr("agent.coordination.lease.MARGIN_S", 0.1)
    monkeypatch.setattr("agent.coordination.lease.RENEW_EVERY_S", 0.05)
    store, clock = FakeLeases(), SystemClock()
    store.hangs = True
    async with body(store, clock) as (task, _):
        async with asyncio.timeout(5):
            assert isinstance(await task, LeaseLost)


async def test_the_time_an_answer_took_counts_against_the_lease() -> None:
    clock = ManualClock()
    held = HeldLease(lease(clock, asked_ago_s=4.0), clock)
    assert held.remaining_s == pytest.approx(TTL_S - MARGIN_S - 4.0)


async def test_a_process_that_was_stopped_past_its_lease_knows_it_before_it_acts() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, held):
        clock.jump(TTL_S)  # SIGSTOP, SIGCONT: the body may run before the renewer does
        with pytest.raises(LeaseLost, match="in time"):
            held[0].check()
        await clock.wake_due()
        assert isinstance(task.result(), LeaseLost)
        assert store.renewals == 0, "a renewal that comes too late would revive a lost lease"


async def test_a_renewal_that_comes_too_late_does_not_revive_the_lease() -> None:
    clock = ManualClock()
    held = HeldLease(lease(clock), clock)
    started = clock.monotonic()
    clock.jump(TTL_S)
    with pytest.raises(LeaseLost):
        held.renewed(started)
    assert held.is_lost


async def test_a_store_that_comes_back_in_time_is_forgiven() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, held):
        await clock.advance(RENEW_EVERY_S * 1.3)
        store.answer = StoreUnavailable("step-down")
        await clock.advance(2.0)
        store.answer = None
        await clock.advance(10 * TTL_S)
        assert not task.done()
        held[0].check()
