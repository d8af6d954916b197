"""Leases on a real server: one owner at a time, an epoch for each, and only the server's clock."""

from __future__ import annotations

import asyncio

import pytest

from agent.errors import LeaseLost
from agent.store.connection import Control
from agent.store.lease_store import LeaseStore
from agent.wire.collections import LEASES
from agent.wire.leases import Lease
from tests.support.mongod import ReplicaSet

SCOPE = "work/rs0"


@pytest.fixture
def leases(control: Control) -> LeaseStore:
    return LeaseStore(control)


def lapse(replset: ReplicaSet, scope: str = SCOPE) -> None:
    """As if its time were over."""
    replset.client().admin[LEASES].update_one(
        {"_id": scope}, [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}]
    )


async def take(leases: LeaseStore, owner: str = "a") -> Lease:
    lease = await leases.acquire(SCOPE, owner)
    assert lease is not None
    return lease


async def test_a_free_lease_is_taken_and_a_held_one_refused(leases: LeaseStore) -> None:
    first = await take(leases)
    assert (first.owner, first.epoch) == ("a", 1)
    assert await leases.acquire(SCOPE, "b") is None
    assert await leases.acquire(SCOPE, "a") is None, "whoever asks again is another incarnation"


async def test_a_lapsed_lease_goes_to_the_next_with_a_higher_epoch(
    leases: LeaseStore, one_node: ReplicaSet
) -> None:
    await take(leases)
    lapse(one_node)
    second = await take(leases, "b")
    assert (second.owner, second.epoch) == ("b", 2)


async def test_the_old_owner_can_neither_renew_nor_release(
    leases: LeaseStore, one_node: ReplicaSet
) -> None:
    old = await take(leases)
    lapse(one_node)
    new = await take(leases, "b")
    with pytest.raises(LeaseLost, match="by b with epoch 2"):
        await leases.renew(old)
    await leases.release(old)
    now = await leases.read(SCOPE)
    assert now is not None
    assert (now.owner, now.epoch) == ("b", new.epoch)
    await leases.renew(new)


async def test_an_owner_that_lost_it_to_itself_has_lost_it(
    leases: LeaseStore, one_node: ReplicaSet
) -> None:
    old = await take(leases)
    lapse(one_node)
    await take(leases, "a")
    with pytest.raises(LeaseLost):
        await leases.renew(old)


async def test_a_released_lease_is_free_at_once_and_its_epoch_goes_on(leases: LeaseStore) -> None:
    await leases.release(await take(leases))
    assert (await take(leases, "b")).epoch == 2


async def test_renewing_moves_the_end(leases: LeaseStore) -> None:
    lease = await take(leases)
    before = await leases.read(SCOPE)
    await asyncio.sleep(0.05)
    renewed = await leases.renew(lease)
    assert before is not None
    assert renewed.expires_at > before.expires_at
    assert renewed.epoch == lease.epoch


async def test_several_are_renewed_in_one_write_which_tells_whether_all_were_ours(
    leases: LeaseStore, one_node: ReplicaSet
) -> None:
    mine = [await leases.acquire(scope, "a") for scope in ("one", "two")]
    taken = [lease for lease in mine if lease is not None]
    assert await leases.renew_all(taken)
    before = await leases.held()
    lapse(one_node, "two")
    assert await leases.acquire("two", "b") is not None
    assert not await leases.renew_all(taken)
    after = await leases.held()
    assert (after["two"].owner, after["two"].epoch) == ("b", 2)
    assert after["one"].expires_at > before["one"].expires_at


@pytest.mark.parametrize("state", ["absent", "lapsed"])
async def test_of_fifty_contenders_one_wins(
    leases: LeaseStore, control: Control, one_node: ReplicaSet, state: str
) -> None:
    if state == "lapsed":
        await take(leases, "the dead one")
        lapse(one_node)
    async with asyncio.TaskGroup() as group:
        bids = [
            group.create_task(LeaseStore(control).acquire(SCOPE, f"agent {number}"))
            for number in range(50)
        ]
    winners = [bid.result() for bid in bids if bid.result() is not None]
    assert len(winners) == 1
    now = await leases.read(SCOPE)
    assert now is not None
    assert now.owner == winners[0].owner  # type: ignore[union-attr]  # of those not None
    assert now.epoch == (2 if state == "lapsed" else 1)


async def test_held_leases_are_those_that_the_server_counts_as_live(
    leases: LeaseStore, one_node: ReplicaSet
) -> None:
    for scope in ("a", "b", "c"):
        assert await leases.acquire(scope, scope)
    lapse(one_node, "b")
    await leases.release(await leases.read("c"))  # type: ignore[arg-type]  # it was taken
    held = await leases.held()
    assert set(held) == {"a"}
    assert 9 < held["a"].remaining_s <= 10


async def test_a_wrong_clock_of_ours_changes_nothing(
    leases: LeaseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for skew_s in (-86_400.0, 86_400.0):
        real = __import__("time").time
        monkeypatch.setattr("time.time", lambda real=real, skew_s=skew_s: real() + skew_s)
        scope = f"skewed {skew_s}"
        lease = await leases.acquire(scope, "a")
        assert lease is not None
        assert await leases.acquire(scope, "b") is None
        assert 9 < (await leases.held())[scope].remaining_s <= 10
        monkeypatch.undo()
