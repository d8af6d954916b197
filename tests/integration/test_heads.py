"""The beginnings of many collections come whole or not at all."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient

from agent.mongo import heads
from agent.mongo.catalogue import read_catalogue
from agent.mongo.cursor import Find, after, at_snapshot
from agent.mongo.heads import HEAD_DOCUMENTS, read_whole_heads
from agent.mongo.node import Node
from agent.mongo.raw import CursorReply
from tests.support.documents import read_raw
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import open_node
from tests.support.workload.runner import mark

Client = MongoClient[dict[str, Any]]
ALL = 64 << 20
MIB = 1 << 20


def _fill(client: Client) -> None:
    """Each just below and just above what one reply of a head may have."""
    db = client["heads"]
    db.create_collection("empty")
    db["one"].insert_one({"_id": 1})
    db["most"].insert_many([{"_id": n} for n in range(HEAD_DOCUMENTS)])
    db["more"].insert_many([{"_id": n} for n in range(HEAD_DOCUMENTS + 1)])
    db["two_replies"].insert_one({"_id": 1, "pad": b"x" * MIB})
    db["two_replies"].insert_one({"_id": 2, "pad": b"x" * (16 * MIB - 100)})
    db["two"].insert_many([{"_id": n, "pad": b"x" * MIB} for n in range(2)])
    db.create_collection("ring", capped=True, size=1 << 20)
    db["ring"].insert_many([{"_id": n} for n in range(9, 0, -1)])
    mark(client)


async def _finds(node: Node, *names: str) -> list[Find]:
    read_at = await node.committed()
    rows = {row.ns: row for row in await read_catalogue(node, read_at)}
    concern = {True: after(read_at), False: at_snapshot(read_at)}
    found = []
    for name in names:
        row = rows[f"heads.{name}"]
        is_capped = bool(row.options.get("capped"))
        found.append(Find("heads", row.uuid, row.ns, concern[is_capped]))
    return found


def _exact(client: Client, name: str) -> bytes:
    return b"".join(read_raw(client, "heads", name))


def _open_cursors(client: Client) -> int:
    return int(client.admin.command("serverStatus")["metrics"]["cursor"]["open"]["total"])


async def test_a_collection_comes_whole_or_is_left_to_the_caller_and_no_cursor_stays_open(
    one_node: ReplicaSet,
) -> None:
    client = one_node.client()
    _fill(client)
    names = ["empty", "one", "more", "two_replies", "ring", "most", "two"]
    async with open_node(one_node) as node:
        finds = await _finds(node, *names)
        before = _open_cursors(client)
        replies = await read_whole_heads(node, finds, most_bytes=ALL)
    found = dict(zip(names, replies, strict=True))
    assert {name for name, reply in found.items() if reply is None} == {"more", "two_replies"}
    for name, reply in found.items():
        if reply is not None:
            assert reply.documents == _exact(client, name), name
            assert reply.count == client["heads"][name].count_documents({})
    assert _open_cursors(client) <= before


async def test_what_the_server_refuses_is_left_out_and_the_others_are_read(
    one_node: ReplicaSet,
) -> None:
    client = one_node.client()
    _fill(client)
    async with open_node(one_node) as node:
        one, two, ring = await _finds(node, "one", "two", "ring")
        dropped = replace(two, uuid="00" * 16)
        refused = replace(ring, read_concern=one.read_concern)  # no snapshot of a capped one
        replies = await read_whole_heads(node, [dropped, refused, one], most_bytes=ALL)
    assert replies[:2] == [None, None]
    assert replies[2] is not None
    assert replies[2].documents == _exact(client, "one")


async def test_reading_ends_after_so_many_bytes(one_node: ReplicaSet) -> None:
    client = one_node.client()
    _fill(client)
    async with open_node(one_node) as node:
        finds = await _finds(node, "one", "two", "most", "one")
        replies = await read_whole_heads(node, finds, most_bytes=MIB)
    assert [reply is None for reply in replies] == [False, False, True, True]


async def test_a_slow_node_is_asked_for_no_more_after_a_while(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    _fill(client)
    monkeypatch.setattr(heads, "TRIP_S", 0.0)
    async with open_node(one_node) as node:
        finds = await _finds(node, "one", "two", "one")
        replies = await read_whole_heads(node, finds, most_bytes=ALL)
    assert replies == [None, None, None]


async def test_a_lost_connection_ends_it(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    _fill(client)
    asked: list[str] = []
    ordinary = heads._head

    def failing(driver: Any, session: Any, find: Find) -> CursorReply | None:
        asked.append(find.label)
        if len(asked) == 2:
            client.admin.command(
                {
                    "configureFailPoint": "failCommand",
                    "mode": {"times": 1},
                    "data": {"failCommands": ["find"], "closeConnection": True},
                }
            )
        return ordinary(driver, session, find)

    monkeypatch.setattr(heads, "_head", failing)
    async with open_node(one_node) as node:
        finds = await _finds(node, "one", "two", "most", "ring")
        replies = await read_whole_heads(node, finds, most_bytes=ALL)
    assert [reply is None for reply in replies] == [False, True, True, True]
    assert asked == ["heads.one", "heads.two"]


async def test_whoever_is_cancelled_asks_for_no_more(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    _fill(client)
    asked: list[str] = []
    is_asked, go_on = threading.Event(), threading.Event()

    def slow(_driver: Any, _session: Any, find: Find) -> CursorReply | None:
        asked.append(find.label)
        is_asked.set()
        go_on.wait(timeout=60)
        return None

    monkeypatch.setattr(heads, "_head", slow)
    async with open_node(one_node) as node:
        finds = await _finds(node, "one", "two", "most")
        reading = asyncio.create_task(read_whole_heads(node, finds, most_bytes=ALL))
        await asyncio.to_thread(is_asked.wait, 60)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        go_on.set()
        await asyncio.sleep(0.1)
    assert asked == ["heads.one"]
