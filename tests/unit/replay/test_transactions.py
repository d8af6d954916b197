"""Transactions take effect when they commit, once, whole, and in order."""

from __future__ import annotations

from typing import Any

from bson import Int64

from agent.replay.entries import command_name, id_key, scan
from agent.replay.transactions import Committed, Transactions, nested
from tests.unit.replay import oplog

UI = oplog.uuid(7)


def writes(*identities: int) -> list[dict[str, Any]]:
    return [oplog.operation("i", "db.c", UI, {"_id": n}, {"_id": n}) for n in identities]


def feed(transactions: Transactions, data: bytes) -> Committed | None:
    entry = scan(data, 0)
    return transactions.feed(entry, command_name(entry))


def identities(committed: Committed | None) -> list[int]:
    assert committed is not None
    return [id_key(operation)[2] for operation in committed.operations()]


def test_a_single_entry_commits_at_once() -> None:
    found = feed(Transactions(), oplog.applied(5, writes(1, 2)))
    assert found is not None
    assert (found.visible_at, found.is_whole) == (oplog.packed(5), True)
    assert identities(found) == [1, 2]


def test_a_chain_commits_with_its_last_entry() -> None:
    transactions = Transactions()
    assert feed(transactions, oplog.applied(1, writes(1, 2), partialTxn=True)) is None
    assert feed(transactions, oplog.applied(3, writes(3), previous=1, partialTxn=True)) is None
    assert transactions.oldest is not None
    assert transactions.oldest.I == 1
    found = feed(transactions, oplog.applied(7, writes(4), previous=3, count=Int64(4)))
    assert found is not None
    assert (found.visible_at, found.is_whole) == (oplog.packed(7), True)
    assert identities(found) == [1, 2, 3, 4]
    assert transactions.oldest is None


def test_a_prepared_one_is_visible_from_its_commit_timestamp_on() -> None:
    transactions = Transactions()
    assert feed(transactions, oplog.applied(1, writes(1), prepare=True)) is None
    assert transactions.prepared == 1
    commit = {"commitTransaction": 1, "commitTimestamp": oplog.ts(4)}
    found = feed(transactions, oplog.decided(6, txn=1, previous=1, **commit))
    assert found is not None
    assert found.visible_at == oplog.packed(4)
    assert identities(found) == [1]
    assert transactions.prepared == 0


def test_an_aborted_one_is_forgotten() -> None:
    transactions = Transactions()
    feed(transactions, oplog.applied(1, writes(1), partialTxn=True))
    feed(transactions, oplog.applied(2, writes(2), previous=1, prepare=True, count=Int64(2)))
    assert feed(transactions, oplog.decided(3, txn=1, previous=2, abortTransaction=1)) is None
    assert transactions.prepared == 0
    again = oplog.decided(4, txn=1, previous=2, commitTransaction=1, commitTimestamp=oplog.ts(4))
    found = feed(transactions, again)
    assert found is not None
    assert not found.is_whole


def test_a_chain_without_its_head_is_told() -> None:
    found = feed(Transactions(), oplog.applied(7, writes(4), previous=3, count=Int64(4)))
    assert found is not None
    assert not found.is_whole


def test_a_chain_with_a_hole_is_told() -> None:
    transactions = Transactions()
    feed(transactions, oplog.applied(1, writes(1), partialTxn=True))
    found = feed(transactions, oplog.applied(7, writes(4), previous=3, count=Int64(3)))
    assert found is not None
    assert not found.is_whole


def test_a_later_transaction_of_the_session_ends_what_was_left_unfinished() -> None:
    transactions = Transactions()
    feed(transactions, oplog.applied(1, writes(1), txn=1, partialTxn=True))
    feed(transactions, oplog.applied(4, writes(2), txn=2))
    assert transactions.oldest is None


def test_a_batch_of_retryable_writes_is_no_chain() -> None:
    transactions = Transactions()
    for at, previous in ((1, 0), (2, 1), (3, 2)):
        found = feed(transactions, oplog.applied(at, writes(at), previous=previous))
        assert found is not None
        assert found.is_whole
        assert identities(found) == [at]


def test_a_command_without_a_session_is_applied_at_once() -> None:
    found = feed(Transactions(), oplog.applied(1, writes(1, 2), txn=None))
    assert identities(found) == [1, 2]


def test_what_is_nested_takes_effect_with_what_is_around_it() -> None:
    inside = oplog.operation("c", "admin.$cmd", None, {"applyOps": writes(1, 2)})
    outer = feed(Transactions(), oplog.applied(5, [inside]))
    assert outer is not None
    found = nested(next(outer.operations()), outer.visible_at)
    assert found.visible_at == oplog.packed(5)
    assert identities(found) == [1, 2]


def test_what_does_not_fit_into_memory_waits_on_disk() -> None:
    transactions = Transactions(memory_bytes=300)
    numbers = list(range(40))
    previous = 0
    for at, number in enumerate(numbers, start=1):
        feed(transactions, oplog.applied(at, writes(number), previous=previous, partialTxn=True))
        previous = at
    last = oplog.applied(50, writes(99), previous=previous, count=Int64(41))
    assert identities(feed(transactions, last)) == [*numbers, 99]
    again = oplog.applied(60, writes(1, 2, 3), txn=2, partialTxn=True)
    feed(transactions, again)
    transactions.close()
