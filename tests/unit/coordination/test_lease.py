"""Holding a lease: renewed in time, lost before it can lapse, given back at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from agent.clock import Clock, SystemClock
from agent.coordination.lease import HeldLease, Holder, renew
from agent.errors import (
    IntegrityError,
    LeaseLost,
    PermissionDenied,
    StorageUnavailable,
    StoreUnavailable,
)
from agent.wire.leases import MARGIN_S, RENEW_EVERY_S, TTL_S, Lease
from tests.support.manual_clock import ManualClock, settle


class FakeLeases:
    """A lease store that answers as told."""

    def __init__(self) -> None:
        self.renewals = 0
        self.released: list[str] = []
        self.answer: Exception | None = None
        self.taken: str | None = None
        """The scope of a lease that somebody else has."""
        self.hangs = False

    async def renew(self, lease: Lease, ttl_s: float = TTL_S) -> Lease:
        if not await self.renew_all([lease]):
            raise self.answer or LeaseLost(f"{lease.id} was taken over")
        return lease

    async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.answer, StoreUnavailable):
            raise self.answer
        self.renewals += 1
        return self.answer is None and self.taken not in {lease.id for lease in leases}

    async def release(self, lease: Lease) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.answer, StoreUnavailable | PermissionDenied):
            raise self.answer
        self.released.append(lease.id)


def lease(clock: Clock, scope: str = "work/rs0", *, asked_ago_s: float = 0.0) -> Lease:
    return Lease(
        id=scope,
        owner="rs0/a:1",
        epoch=7,
        expires_at=datetime(2026, 1, 1, tzinfo=UTC),
        asked_at=clock.monotonic() - asked_ago_s,
    )


Task = asyncio.Task[BaseException | None]


@asynccontextmanager
async def bodies(
    store: FakeLeases, clock: Clock, *scopes: str
) -> AsyncIterator[tuple[list[Task], list[HeldLease]]]:
    """A task for each scope that holds its lease for ever; its result is what ended it."""
    holder = Holder(store, clock)
    held: list[HeldLease] = []

    async def work(scope: str) -> BaseException | None:
        try:
            async with holder.hold(lease(clock, scope)) as one:
                held.append(one)
                await asyncio.Event().wait()
        except Exception as error:
            return error
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work(scope)) for scope in scopes]
        await settle()
        yield tasks, held
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def body(store: FakeLeases, clock: Clock) -> AsyncIterator[tuple[Task, list[HeldLease]]]:
    """The same with one."""
    async with bodies(store, clock, "work/rs0") as ((task,), held):
        yield task, held


async def test_a_lease_is_renewed_for_as_long_as_the_body_runs() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, held):
        await clock.advance(60 * TTL_S)
        assert not task.done()
        held[0].check()
        assert store.renewals >= 60 * TTL_S / (RENEW_EVERY_S * 1.3)


async def test_a_body_that_ends_gives_the_lease_back() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with Holder(store, clock).hold(lease(clock)) as held:
        assert (held.scope, held.owner, held.epoch) == ("work/rs0", "rs0/a:1", 7)
    assert store.released == ["work/rs0"]


@pytest.mark.parametrize("answer", [StoreUnavailable("away"), PermissionDenied("not allowed")])
async def test_a_body_that_is_cancelled_is_cancelled_though_the_lease_cannot_be_given_back(
    answer: Exception,
) -> None:
    store, clock = FakeLeases(), ManualClock()
    async with body(store, clock) as (task, _):
        store.answer = answer
        task.cancel()
        await settle()
        assert task.cancelled()


async def test_an_error_of_the_body_comes_out_as_it_is_and_the_lease_is_given_back() -> None:
    store, clock = FakeLeases(), ManualClock()
    with pytest.raises(IntegrityError, match="flipped") as caught:
        async with Holder(store, clock).hold(lease(clock)):
            raise IntegrityError("flipped") from OSError("underneath")
    assert isinstance(caught.value.__cause__, OSError)
    assert store.released == ["work/rs0"]


async def test_of_several_errors_the_one_to_record_comes_out() -> None:
    store, clock = FakeLeases(), ManualClock()

    async def fail(error: Exception) -> None:
        raise error

    async def fail_twice() -> None:
        async with Holder(store, clock).hold(lease(clock)), asyncio.TaskGroup() as group:
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


async def test_who_is_answered_late_asks_again_while_there_is_time_left() -> None:
    clock = ManualClock()
    late_s = TTL_S - MARGIN_S - 1.0

    class Slow(FakeLeases):
        async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
            clock.jump(late_s)
            return await super().renew_all(leases, ttl_s)

    held = HeldLease(lease(clock), clock)
    await renew(Slow(), clock, held, [held])
    assert held.remaining_s == pytest.approx(1.0)
    assert held.due_in_s == 0.0
    assert HeldLease(lease(clock, asked_ago_s=late_s), clock).due_in_s == 0.0


async def test_a_late_answer_takes_nothing_from_what_was_renewed_meanwhile() -> None:
    clock = ManualClock()
    slow, other = (HeldLease(lease(clock, scope), clock) for scope in ("slow", "other"))

    class Overtaken(FakeLeases):
        async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
            clock.jump(5.0)
            other.renewed(clock.monotonic())
            clock.jump(1.0)
            return await super().renew_all(leases, ttl_s)

    await renew(Overtaken(), clock, slow, [slow, other])
    assert slow.remaining_s == pytest.approx(TTL_S - MARGIN_S - 6.0)
    assert other.remaining_s == pytest.approx(TTL_S - MARGIN_S - 1.0)


async def test_all_leases_of_an_agent_are_renewed_in_one_write() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with bodies(store, clock, "a", "b", "c") as (tasks, held):
        await clock.advance(60 * TTL_S)
        assert not any(task.done() for task in tasks)
        for one in held:
            one.check()
        assert store.renewals <= 60 * TTL_S / (RENEW_EVERY_S * 0.8) + 1


async def test_a_lease_that_is_taken_ends_its_own_body_alone() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with bodies(store, clock, "a", "b", "c") as (tasks, _):
        await clock.advance(RENEW_EVERY_S * 1.3)
        store.taken = "b"
        await clock.advance(RENEW_EVERY_S * 1.3)
        assert [task.done() for task in tasks] == [False, True, False]
        assert "b was taken over" in str(tasks[1].result())
        await clock.advance(60 * TTL_S)
        assert [task.done() for task in tasks] == [False, True, False]
        assert store.released == []


async def test_whoever_was_taken_along_renews_itself_when_the_other_has_ended() -> None:
    store, clock = FakeLeases(), ManualClock()
    async with bodies(store, clock, "a", "b") as (tasks, held):
        await clock.advance(10 * TTL_S)
        tasks[0].cancel()
        await clock.advance(10 * TTL_S)
        assert store.released == ["a"]
        assert not tasks[1].done()
        held[1].check()


async def test_a_joint_renewal_that_comes_too_late_for_one_does_not_revive_it() -> None:
    clock = ManualClock()
    older = HeldLease(lease(clock, "older"), clock)
    clock.jump(4.0)
    due = HeldLease(lease(clock, "due"), clock)

    class Slow(FakeLeases):
        async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
            clock.jump(TTL_S - MARGIN_S - 2.0)
            return await super().renew_all(leases, ttl_s)

    await renew(Slow(), clock, due, [older, due])
    assert older.is_lost
    assert not due.is_lost
    assert due.remaining_s == pytest.approx(2.0)


async def test_a_lease_that_is_lost_is_not_held_on_for_others() -> None:
    class Noting(FakeLeases):
        seen: tuple[str, ...] = ()

        async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
            self.seen = tuple(lease.id for lease in leases)
            return True

    store, clock = Noting(), ManualClock()
    lost, due = (HeldLease(lease(clock, scope), clock) for scope in ("lost", "due"))
    lost.lose("taken over")
    await renew(store, clock, due, [lost, due])
    assert store.seen == ("due",)
