"""What a cluster was amidst of, from the documents of its changes of structure."""

from __future__ import annotations

from typing import Any

import bson
from bson import Binary, Timestamp

from agent.replay.unfinished import (
    Change,
    Coordinators,
    Unfinished,
    rolled_forward,
    tags_forward,
)
from agent.wire.optime import OpTime

NS = "config.system.sharding_ddl_coordinators"
ONE = Binary(bytes([1]) * 16, 4)
TWO = Binary(bytes([2]) * 16, 4)
ROW: dict[str, Any] = {"_id": "app.one", "uuid": ONE, "key": {"a.b": 1}}


def entry(inc: int, op: str, o: dict[str, Any], ns: str = NS) -> bytes:
    return bson.encode({"ts": Timestamp(9, inc), "t": 1, "op": op, "ns": ns, "o": o})


def document(operation: str, namespace: str, phase: str, **fields: Any) -> dict[str, Any]:
    identity = {"namespace": namespace, "operationType": operation}
    return {"_id": identity, "phase": phase, **fields}


def rename(phase: str, **fields: Any) -> dict[str, Any]:
    return document("renameCollection", "app.one", phase, to="app.two", **fields)


def found(until: int, *log: bytes) -> list[Unfinished]:
    coordinators = Coordinators(OpTime(T=9, I=until))
    for data in log:
        coordinators.read(data)
    return coordinators.found()


LOG = (
    entry(1, "i", rename("checkPreconditions")),
    entry(2, "u", rename("freezeMigrations", optShardedCollInfo=ROW)),
    entry(3, "u", rename("blockCRUDAndRename", optShardedCollInfo=ROW)),
    entry(4, "i", {"_id": 1}, "app.noise"),
    entry(5, "d", {"_id": {"namespace": "app.one", "operationType": "renameCollection"}}),
)


def test_change_is_seen_from_its_first_effect_to_its_end() -> None:
    began = OpTime(T=9, I=1)
    half = [Unfinished(Change.RENAME, "app.one", began, "app.two", ROW)]
    assert [found(until, *LOG) for until in range(6)] == [[], [], [], half, half, []]


def test_unsharded_rename_is_one_entry_and_nothing_to_finish() -> None:
    assert found(9, entry(1, "i", rename("renameMetadata"))) == []


def test_what_leaves_no_half_state_is_not_looked_at() -> None:
    assert found(9, entry(1, "i", document("createCollection_V2", "app.x", "commit"))) == []


def test_drops_are_seen() -> None:
    log = (
        entry(1, "i", document("dropCollection", "app.x", "dropCollection")),
        entry(2, "i", document("dropDatabase", "shop.", "drop")),
    )
    assert [(c.change, c.namespace) for c in found(9, *log)] == [
        (Change.DROP, "app.x"),
        (Change.DROP_DATABASE, "shop"),
    ]


def test_it_survives_being_written_down() -> None:
    (change,) = found(3, *LOG)
    assert Unfinished.from_binary(change.to_binary()) == change


def test_rename_ends_under_the_new_name_wherever_the_tables_were() -> None:
    (change,) = found(3, *LOG)
    gone: dict[str, Any] = {"_id": "app.two", "uuid": TWO}
    done = {**ROW, "_id": "app.two"}
    other: dict[str, Any] = {"_id": "shop.x", "uuid": TWO}
    befores: list[list[dict[str, Any]]] = [
        [ROW, gone, other],
        [gone, other],
        [other],
        [done, other],
    ]
    for before in befores:
        after = {row["_id"]: row for row in rolled_forward(before, [change])}
        assert after == {"app.two": done, "shop.x": other}


def test_drops_end_without_rows_and_tags() -> None:
    at = OpTime(T=1, I=1)
    changes = [Unfinished(Change.DROP, "app.one", at), Unfinished(Change.DROP_DATABASE, "shop", at)]
    rows: list[dict[str, Any]] = [
        ROW,
        {"_id": "shop.x", "uuid": TWO},
        {"_id": "shopping.x", "uuid": TWO},
    ]
    assert [row["_id"] for row in rolled_forward(rows, changes)] == ["shopping.x"]
    tags = [{"ns": "app.one"}, {"ns": "shop.x"}, {"ns": "shopping.x"}]
    assert tags_forward(tags, changes) == [{"ns": "shopping.x"}]


def test_tags_follow_a_rename() -> None:
    (change,) = found(3, *LOG)
    assert tags_forward([{"ns": "app.one", "tag": "eu"}], [change]) == [
        {"ns": "app.two", "tag": "eu"}
    ]
