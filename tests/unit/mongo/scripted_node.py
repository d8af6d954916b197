"""A node whose answers are written down beforehand, for what no real server can be made to do."""

from __future__ import annotations

from typing import Any

import bson
from bson import Int64, Timestamp
from bson.raw_bson import RawBSONDocument

from agent.mongo.node import Hello, Node
from agent.mongo.sessions import Sessions
from agent.wire.nodes import Role
from agent.wire.optime import OpTime


class StillSession:
    """Nothing is ever open in it."""

    def __init__(self, client: StillClient) -> None:
        self.client = client
        self.has_ended = False

    async def end_session(self) -> None:
        """May be called again, like a driver's."""
        self.has_ended = True


class StillClient:
    """Knows nothing but sessions."""

    def __init__(self) -> None:
        self.started: list[StillSession] = []

    async def start_session(self, *, causal_consistency: bool) -> StillSession:
        """A session that does nothing."""
        assert not causal_consistency
        self.started.append(StillSession(self))
        return self.started[-1]


class ScriptedNode(Node):
    """Answers `find` and `getMore` with the replies given, in order."""

    def __init__(self, replies: list[bytes], *, majority: OpTime) -> None:
        self._replies = list(replies)
        self._majority = majority
        self.asked: list[dict[str, Any]] = []
        self.direct: Any = StillClient()
        self.sessions = Sessions()
        self.host = "db1:27017"
        self.replset = "rs0"
        self.is_config = False
        self.shard = None

    async def command(self, database: str, command: dict[str, Any], **_: Any) -> Any:
        """The next reply."""
        self.asked.append(command)
        return RawBSONDocument(self._replies.pop(0))

    async def hello(self) -> Hello:
        """Always the same."""
        return Hello(
            replset="rs0",
            host=self.host,
            role=Role.SECONDARY,
            is_primary=False,
            last_applied=self._majority,
            majority=self._majority,
            cluster_time=self._majority,
            is_config=False,
            gossip={},
        )


def batch(*documents: dict[str, Any], cursor_id: int = 0, first: bool = True) -> bytes:
    """A reply to `find` (or `getMore`)."""
    name = "firstBatch" if first else "nextBatch"
    cursor = {name: list(documents), "id": Int64(cursor_id), "ns": "local.oplog.rs"}
    return bson.encode({"cursor": cursor, "ok": 1.0})


def entry(seconds: int, *, term: int | None = 1, **fields: Any) -> dict[str, Any]:
    """An oplog entry at `(seconds, 1)`."""
    described = {"op": "n", "ns": "", "o": {}, **fields, "ts": Timestamp(seconds, 1)}
    return described if term is None else {**described, "t": Int64(term)}


def at(seconds: int) -> OpTime:
    """The OpTime of `entry(seconds)`."""
    return OpTime(T=seconds, I=1)
