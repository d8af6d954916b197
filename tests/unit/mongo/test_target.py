"""Listing and counting what is on the target."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import bson
import pytest
from bson import Binary, Int64

from agent.mongo.apply.target import collections, shapes
from agent.mongo.counting import count_exactly
from agent.mongo.dumping import listed_collections, listed_indexes
from agent.wire.optime import OpTime
from tests.unit.mongo.scripted_node import ScriptedNode, batch

ROW = {
    "ns": "db.c",
    "md": {
        "options": {"uuid": Binary(bytes(16), 4)},
        "indexes": [{"ready": True, "spec": {"v": 2, "key": {"_id": 1}, "name": "_id_"}}],
    },
}


class Listening(ScriptedNode):
    """Notes the session that a command belongs to."""

    def __init__(self, replies: list[bytes]) -> None:
        super().__init__(replies, majority=OpTime(T=1, I=1))
        self.used: list[Any] = []

    async def command(self, database: str, command: dict[str, Any], **options: Any) -> Any:
        self.used.append(options.get("session"))
        return bson.decode((await super().command(database, command)).raw)


async def test_a_listing_stays_in_the_session_that_began_it() -> None:
    # A cursor that another session asks for more is refused, and the driver takes any.
    for listing in ("collections", "shapes"):
        node = Listening([batch(ROW, cursor_id=7), batch(ROW, first=False)])
        if listing == "collections":
            assert len(await collections(node)) == 2
        else:
            async with aclosing(shapes(node, ["db"])) as rows:
                assert [row.ns async for row in rows] == ["db.c", "db.c"]
        assert node.used[0] is not None
        assert node.used[0] is node.used[1]
        assert node.asked[1]["getMore"] == Int64(7)


async def test_a_dumped_listing_stays_in_its_session_and_ends_it_when_it_fails() -> None:
    node = Listening([batch(ROW, cursor_id=7), batch(ROW, first=False)])
    assert len(await listed_collections(node, "db")) == 2
    assert node.used[0] is not None
    assert node.used[0] is node.used[1]
    assert not node.used[0].has_ended, "the next reader takes it"
    node = Listening([batch(ROW, cursor_id=7)])
    with pytest.raises(IndexError):
        await listed_indexes(node, "db", "c")
    assert node.used[0].has_ended, "the server forgets the cursor with it"


async def test_documents_are_counted_by_reading_them() -> None:
    node = Listening([batch({"_id": None, "n": 3}), batch()])
    assert await count_exactly(node, "db.c.d") == 3
    assert await count_exactly(node, "db.c.d") == 0
    assert node.asked[0]["aggregate"] == "c.d"
