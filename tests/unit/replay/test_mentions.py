"""What a span writes to, told before it is replayed onto live data."""

from __future__ import annotations

import pytest

from agent.errors import Refused
from agent.replay.mentions import Mentions
from agent.wire.optime import OpTime
from tests.unit.replay.oplog import applied, command, decided, insert, operation, ts, uuid

ONE, TWO, THREE = uuid(1), uuid(2), uuid(3)


def mentioned(*log: bytes) -> dict[str, str]:
    mentions = Mentions(OpTime(T=1000, I=10), OpTime(T=1000, I=20))
    mentions.read(b"".join(log))
    found = mentions.found()
    mentions.close()
    return found


def test_names_are_those_of_the_first_mention_within_the_span() -> None:
    found = mentioned(
        insert(10, THREE, 1, "db.before"),
        insert(11, ONE, 1, "db.first"),
        insert(12, ONE, 2, "db.second"),
        command(13, TWO, {"create": "made"}),
        insert(14, TWO, 1, "db.made"),
        insert(21, THREE, 1, "db.after"),
    )
    assert found == {ONE.hex(): "db.first"}


def test_a_transaction_counts_from_when_it_is_visible() -> None:
    first = [operation("i", "db.one", ONE, {"_id": 1})]
    second = [operation("i", "db.two", TWO, {"_id": 1})]
    prepared = applied(5, first, txn=1, prepare=True) + applied(6, second, txn=2, prepare=True)
    committed = decided(11, txn=1, previous=5, commitTransaction=1, commitTimestamp=ts(9))
    late = decided(12, txn=2, previous=6, commitTransaction=1, commitTimestamp=ts(11))
    assert mentioned(prepared, committed, late) == {TWO.hex(): "db.two"}
    # Not decided by the end: what other shards know may decide it.
    assert mentioned(applied(15, first, txn=1, prepare=True)) == {ONE.hex(): "db.one"}


def test_a_transaction_whose_beginning_is_not_archived_is_refused() -> None:
    last = applied(12, [operation("i", "db.one", ONE, {"_id": 1})], previous=5, count=2)
    with pytest.raises(Refused, match="began before what is archived"):
        mentioned(last)
    with pytest.raises(Refused, match="1000,11"):
        mentioned(decided(12, txn=2, previous=6, commitTransaction=1, commitTimestamp=ts(11)))
    gone = decided(12, txn=2, previous=6, commitTransaction=1, commitTimestamp=ts(10))
    assert mentioned(gone) == {}
