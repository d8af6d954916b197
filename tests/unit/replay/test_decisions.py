"""A transaction over several shards is in a restore wholly or not at all, whatever is archived."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import bson
import pytest
from bson import Int64
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.replay.catalogue import Catalogue, Collection
from agent.replay.decisions import Decisions
from agent.replay.interpreter import Barrier, Interpreter, Span
from agent.replay.scope import Scope
from agent.replay.transactions import TransactionKey, Transactions
from tests.unit.replay import oplog

UI = oplog.uuid(7)
SHARDS = ("s0", "s1", "s2")
_INDEX = {"_id_": {"v": 2, "key": {"_id": 1}, "name": "_id_"}}


@dataclass(frozen=True)
class Crossing:
    """One transaction: who takes part, and when what happens. Moments are unique numbers."""

    number: int
    prepared: dict[str, int]
    commit: int | None
    """The commit timestamp; None when it aborts."""
    decided: int
    """When the coordinator, the first participant, writes its decision down."""
    ended: dict[str, int]


def crossings(rng: random.Random, count: int) -> list[Crossing]:
    """Interleaved as the server allows: prepare ≤ commit < decision < end, on a common clock."""
    found = []
    moments = iter(range(1, 100_000))
    running: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        running.append({"number": number, "stage": 0, "shards": rng.sample(SHARDS, 2)})
        while running and (len(running) > 3 or number == count or rng.random() < 0.6):
            one = rng.choice(running)
            at = next(moments)
            if one["stage"] < 2:
                one.setdefault("prepared", {})[one["shards"][one["stage"]]] = at
            elif one["stage"] == 2:
                one["decided"] = at
            else:
                one.setdefault("ended", {})[one["shards"][one["stage"] - 3]] = at
            one["stage"] += 1
            if one["stage"] == 5:
                running.remove(one)
                commit = max(one["prepared"].values()) if rng.random() < 0.8 else None
                found.append(
                    Crossing(one["number"], one["prepared"], commit, one["decided"], one["ended"])
                )
    return found


def logs(found: list[Crossing], rng: random.Random) -> dict[str, list[tuple[int, bytes]]]:
    """The oplog of each shard: entries with their moments."""
    made: dict[str, list[tuple[int, bytes]]] = {shard: [] for shard in SHARDS}
    for one in found:
        for shard, at in one.prepared.items():
            identity = f"{one.number}"
            write = oplog.operation("i", "db.c", UI, {"_id": identity}, {"_id": identity})
            entry = oplog.applied(at, [write], txn=one.number, prepare=True)
            made[shard].append((at, of_session(one.number, entry)))
        coordinator = next(iter(one.prepared))
        made[coordinator].append((one.decided, coordinated(one, is_diff=rng.random() < 0.3)))
        for shard, at in one.ended.items():
            previous = one.prepared[shard]
            fields: dict[str, Any] = (
                {"abortTransaction": 1} if one.commit is None else committing(one.commit)
            )
            entry = oplog.decided(at, txn=one.number, previous=previous, **fields)
            made[shard].append((at, of_session(one.number, entry)))
    return {shard: sorted(entries) for shard, entries in made.items()}


def coordinated(one: Crossing, *, is_diff: bool) -> bytes:
    """The coordinator's decision, as the server logs it: the document, or what was added to it."""
    identity = {"_id": {"lsid": oplog.LSID, "txnNumber": Int64(one.number)}}
    decision: dict[str, Any] = {"decision": "abort", "abortStatus": {"code": 251}}
    if one.commit is not None:
        decision = {"decision": "commit", "commitTimestamp": oplog.ts(one.commit)}
    o: dict[str, Any] = {**identity, "participants": [*one.prepared], "decision": decision}
    if is_diff:
        o = {"$v": 2, "diff": {"i": {"decision": decision}}}
    ns = "config.transaction_coordinators"
    entry = oplog.entry(one.decided, oplog.operation("u", ns, oplog.uuid(9), o, identity))
    return of_session(one.number, entry)


def committing(at: int) -> dict[str, Any]:
    """The command of a participant that commits."""
    return {"commitTransaction": 1, "commitTimestamp": oplog.ts(at)}


def of_session(number: int, entry: bytes) -> bytes:
    """Under a session of its own: one session has one transaction at a time."""
    return entry.replace(oplog.LSID["id"], number.to_bytes(16, "big"))


def restored(
    shard: str,
    archived: dict[str, list[tuple[int, bytes]]],
    until: int,
) -> set[int]:
    """The transactions whose effect a shard has after a restore, of all that is archived."""
    catalogue = Catalogue(Scope())
    catalogue.add(Collection(bytes(UI), "db.c", Scope(), options={}, indexes=dict(_INDEX)))
    transactions = Transactions()
    replay = Interpreter(catalogue, Span(0, oplog.packed(until)), transactions=transactions)
    own = b"".join(data for at, data in archived[shard] if at <= until)
    items = list(replay.interpret(own))
    decisions = Decisions(replay.undecided())
    for other in SHARDS:
        decisions.read(b"".join(data for _, data in archived[other]))
    items += replay.settle(decisions.found)
    warnings = replay.finish()
    assert bool(warnings) == (decisions.undecided > 0)
    found = set()
    for item in items:
        assert not isinstance(item, Barrier)
        found.add(int(bson.decode(item[1])["o"]["_id"]))
    return found


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_every_participant_has_it_or_none_has(
    rng: random.Random, count: int, moment: float, end: float
) -> None:
    found = crossings(rng, count)
    history = logs(found, rng)
    last = max(at for entries in history.values() for at, _ in entries)
    until = round(moment * last)
    # What is archived ends somewhere at or after the moment, elsewhere on each shard.
    ends = {shard: until + round(rng.random() * end * (last - until)) for shard in SHARDS}
    archived = {s: [(at, data) for at, data in history[s] if at <= ends[s]] for s in SHARDS}
    effects = {shard: restored(shard, archived, until) for shard in SHARDS}
    for one in found:
        present = {one.number in effects[shard] for shard in one.prepared}
        assert len(present) == 1, (one, until, ends)
        is_visible = one.commit is not None and one.commit <= until
        coordinator = next(iter(one.prepared))
        told = one.decided <= ends[coordinator] or any(
            at <= ends[shard] for shard, at in one.ended.items()
        )
        assert present == {is_visible and told}


def test_a_client_that_was_told_finds_its_transaction_though_no_shard_has_its_commit() -> None:
    one = Crossing(1, {"s0": 1, "s1": 2}, commit=2, decided=3, ended={"s0": 5, "s1": 6})
    archived = {s: [e for e in entries if e[0] <= 4] for s, entries in every(one).items()}
    assert [restored(shard, archived, 4) for shard in ("s0", "s1")] == [{1}, {1}]


def test_a_moment_before_the_commit_timestamp_leaves_it_out() -> None:
    one = Crossing(1, {"s0": 1, "s1": 3}, commit=3, decided=4, ended={"s0": 5, "s1": 6})
    assert [restored(shard, every(one), 2) for shard in ("s0", "s1")] == [set(), set()]
    assert [restored(shard, every(one), 3) for shard in ("s0", "s1")] == [{1}, {1}]


@pytest.mark.parametrize("is_diff", [True, False])
def test_a_coordinator_that_aborts_ends_the_search(is_diff: bool) -> None:
    one = Crossing(1, {"s0": 1, "s1": 2}, commit=None, decided=3, ended={})
    decisions = Decisions([key(1)])
    decisions.read(coordinated(one, is_diff=is_diff))
    assert decisions.is_complete
    assert decisions.found == {key(1): None}


def test_thousands_in_flight_are_decided_in_one_pass() -> None:
    numbers = range(1, 5001)
    decisions = Decisions(key(n) for n in numbers)
    ends = [
        of_session(n, oplog.decided(n, txn=n, previous=n, **committing(n % 100 + 1)))
        for n in numbers
    ]
    decisions.read(b"".join(ends))
    assert decisions.is_complete
    assert decisions.found[key(5000)] == oplog.packed(1)


def test_what_nobody_asks_about_is_passed_over() -> None:
    one = Crossing(1, {"s0": 1, "s1": 2}, commit=2, decided=3, ended={"s0": 4, "s1": 5})
    decisions = Decisions([key(2)])
    for entries in every(one).values():
        decisions.read(b"".join(data for _, data in entries))
    assert decisions.undecided == 1


def every(*found: Crossing) -> dict[str, list[tuple[int, bytes]]]:
    return logs(list(found), random.Random(1))


def key(number: int) -> TransactionKey:
    return of_session(number, bson.encode(oplog.LSID)), number
