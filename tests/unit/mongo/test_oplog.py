"""Nothing is archived behind a hole: every read begins at the last archived entry, or says why."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Binary

from agent.errors import NodeUnavailable, OplogForked, OplogOverrun
from agent.mongo.oplog import (
    OplogBatch,
    Position,
    open_transactions_start,
    read_oplog,
    window_left,
)
from agent.mongo.raw import documents
from tests.unit.mongo.scripted_node import ScriptedNode, at, batch, entry

LATE = at(1000)


async def _read(node: ScriptedNode, position: Position) -> list[OplogBatch]:
    return [found async for found in read_oplog(node, position)]


def _seconds(batches: list[OplogBatch]) -> list[int]:
    return [
        bson.decode(found.entries[start:end])["ts"].time
        for found in batches
        for start, end in documents(found.entries)
    ]


async def test_the_entry_at_the_position_is_checked_and_left_out() -> None:
    node = ScriptedNode(
        [
            batch(entry(10), entry(11), cursor_id=7),
            batch(entry(12), entry(13, term=2), first=False),
        ],
        majority=LATE,
    )
    found = await _read(node, Position(at(10), 1))
    assert _seconds(found) == [11, 12, 13]
    assert [part.count for part in found] == [1, 2]
    assert found[-1].last == Position(at(13), 2)
    assert node.asked[0]["filter"] == {"ts": {"$gte": at(10).timestamp()}}
    assert node.asked[0]["readConcern"] == {"level": "majority"}


async def test_nothing_new_is_nothing() -> None:
    node = ScriptedNode([batch(entry(10))], majority=LATE)
    assert await _read(node, Position(at(10), 1)) == []


async def test_another_term_at_the_position_is_a_fork() -> None:
    node = ScriptedNode([batch(entry(10, term=3), entry(11, term=3))], majority=LATE)
    with pytest.raises(OplogForked, match="of term 2 was rolled back on db1:27017"):
        await _read(node, Position(at(10), 2))


async def test_a_missing_entry_within_the_reach_of_the_oplog_is_a_fork() -> None:
    node = ScriptedNode([batch(entry(11)), batch(entry(5))], majority=LATE)
    with pytest.raises(OplogForked, match="goes on at 11,1"):
        await _read(node, Position(at(10), 1))


@pytest.mark.parametrize("term", [None, 1])
async def test_an_oplog_that_begins_after_the_position_is_an_overrun(term: int | None) -> None:
    node = ScriptedNode([batch(entry(11)), batch(entry(11))], majority=LATE)
    with pytest.raises(OplogOverrun, match="begins at 11,1, after 10,1"):
        await _read(node, Position(at(10), term))


async def test_where_archiving_begins_no_entry_has_to_be() -> None:
    node = ScriptedNode([batch(entry(11), entry(12)), batch(entry(5))], majority=LATE)
    assert _seconds(await _read(node, Position(at(10)))) == [11, 12]
    node = ScriptedNode([batch(), batch(entry(5))], majority=LATE)
    assert await _read(node, Position(at(10))) == []


async def test_a_node_that_lags_behind_the_position_is_asked_again_later() -> None:
    node = ScriptedNode([batch()], majority=at(9))
    with pytest.raises(NodeUnavailable, match="up to 9,1 only"):
        await _read(node, Position(at(10), 1))


async def test_a_node_that_catches_up_between_two_questions_is_no_fork() -> None:
    node = ScriptedNode([batch(), batch(entry(10))], majority=at(10))
    assert await _read(node, Position(at(10), 1)) == []


async def test_an_entry_that_is_gone_for_good_is_a_fork() -> None:
    node = ScriptedNode([batch(), batch()], majority=at(20))
    with pytest.raises(OplogForked, match="no committed entry at 10,1"):
        await _read(node, Position(at(10), 1))


async def test_the_first_entry_of_a_replica_set_has_no_term_and_is_found_again() -> None:
    node = ScriptedNode([batch(entry(9, term=None)), batch(entry(1))], majority=LATE)
    (found,) = await _read(node, Position(at(8)))
    again = ScriptedNode([batch(entry(9, term=None), entry(10))], majority=LATE)
    assert _seconds(await _read(again, found.last)) == [10]


async def test_commands_are_found_and_look_alikes_are_not() -> None:
    mark: dict[str, Any] = {"op": "c", "ns": "x"}
    drop = entry(12, op="c", ns="db.$cmd", ui=Binary(b"u" * 16, 4), o={"drop": "c"})
    session = {"lsid": {"id": Binary(b"l" * 16, 4), "uid": b"s" * 32}, "txnNumber": 1}
    transaction = {**session, **entry(13, op="c", ns="admin.$cmd", o={"applyOps": []})}
    insert = entry(11, op="i", ns="db.c", o={"_id": 1, "nested": mark, **mark})
    node = ScriptedNode([batch(entry(10), insert, drop, transaction)], majority=LATE)
    (found,) = await _read(node, Position(at(10), 1))
    assert [next(iter(command["o"])) for command in found.commands] == ["drop", "applyOps"]


@pytest.mark.parametrize(
    ("oldest", "position", "left"),
    [
        (600, 1000, 1.0),
        (600, 900, 0.75),
        (600, 700, 0.25),
        (600, 599, 0.0),
        (980, 950, 0.0),
        (955, 950, 0.0),
        (940, 950, 1.0),
    ],
    ids=["up", "late", "later", "gone", "gone soon", "gone soonest", "a young oplog"],
)
async def test_the_window_left_is_none_where_the_position_fell_off(
    oldest: int, position: int, left: float
) -> None:
    node = ScriptedNode([batch(entry(oldest))], majority=LATE)
    assert await window_left(node, at(position)) == left


async def test_the_oldest_open_transaction_counts() -> None:
    rows: list[dict[str, Any]] = [
        {"_id": 1, "startOpTime": {"ts": at(30).timestamp(), "t": 1}},
        {"_id": 2},
        {"_id": 3, "startOpTime": {"ts": at(20).timestamp(), "t": 1}},
    ]
    node = ScriptedNode(
        [batch(*rows, cursor_id=5), batch(rows[0], first=False)],
        majority=LATE,
    )
    assert await open_transactions_start(node) == at(20)
    assert node.asked[0]["filter"] == {"state": {"$in": ["prepared", "inProgress"]}}
    assert await open_transactions_start(ScriptedNode([batch()], majority=LATE)) is None
