"""Writes that a node carries out in part: what it says of the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import bson
import pytest

from agent.errors import NodeUnavailable, PermissionDenied, RestoreFailed
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.inserting import insert
from agent.mongo.apply.sharding import put, remove
from agent.mongo.node import Node
from agent.mongo.translate import CommandFailed
from agent.wire.optime import OpTime
from tests.unit.mongo.scripted_node import ScriptedNode

STEPPED_DOWN: Final = {"index": 0, "code": 10107, "errmsg": "Not primary while writing to c.d"}
"""As mongod 6.0 answers a bulk of writes in the middle of which it steps down."""
WRITES: Final[dict[str, Callable[[Node], Awaitable[Any]]]] = {
    "insert": lambda node: insert(node, "c.d", [RawDocument(bson.encode({"_id": 1}))]),
    "update": lambda node: put(node, "c.d", [{"_id": 1}]),
    "delete": lambda node: remove(node, "c.d", {}),
}


def _node(**error: Any) -> ScriptedNode:
    reply = {"ok": 1, "n": 0, "writeErrors": [error]}
    return ScriptedNode([bson.encode(reply)], majority=OpTime(T=1, I=1))


@pytest.mark.parametrize("write", WRITES)
async def test_a_step_down_between_two_writes_is_worth_another_try(write: str) -> None:
    with pytest.raises(NodeUnavailable, match="Not primary"):
        await WRITES[write](_node(**STEPPED_DOWN))


async def test_what_a_write_is_refused_for_is_said() -> None:
    refused = {"index": 0, "code": 11000, "errmsg": "duplicate key"}
    with pytest.raises(CommandFailed, match=r"writing to c\.d: duplicate key") as caught:
        await WRITES["update"](_node(**refused))
    assert caught.value.code == refused["code"]
    with pytest.raises(RestoreFailed, match="duplicate key"):
        await WRITES["insert"](_node(**refused))
    with pytest.raises(PermissionDenied):
        await WRITES["delete"](_node(index=0, code=13, errmsg="not authorized"))
