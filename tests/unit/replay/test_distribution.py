"""Whether documents went on belonging to the shards they belonged to, from the oplog's words."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Binary, MaxKey, MinKey

from agent.replay.distribution import Distribution, Followed, difference
from agent.wire.optime import OpTime
from tests.unit.replay.oplog import applied, delete, entry, insert, operation, update, uuid

TABLE = uuid(9)
SINCE, UNTIL = OpTime(T=1000, I=10), OpTime(T=1000, I=20)
Row = dict[str, Any]


def chunk(identity: int, low: Any, high: Any, shard: str, of: Binary = uuid(1)) -> Row:  # noqa: B008
    return {"_id": identity, "uuid": of, "min": {"k": low}, "max": {"k": high}, "shard": shard}


def tables() -> Distribution:
    """One collection: below 0 on s0, the rest on s1."""
    made = Distribution()
    made.put("config.databases", {"_id": "shop", "primary": "s0"})
    made.put("config.collections", {"_id": "shop.a", "uuid": uuid(1), "key": {"k": 1}})
    made.put("config.chunks", chunk(1, MinKey(), 0, "s0"))
    made.put("config.chunks", chunk(2, 0, MaxKey(), "s1"))
    return made


def followed(*log: bytes) -> Followed:
    found = Followed(tables(), SINCE, UNTIL, ["s0", "s1"])
    found.read(b"".join(log))
    found.close()
    return found


def write(row: Row, table: str = "config.chunks", op: str = "u") -> Row:
    return operation(op, table, TABLE, row, {"_id": row["_id"]})


def together(at: int, *rows: Row) -> bytes:
    return applied(at, list(rows), txn=None)


CUT = together(11, write(chunk(2, 0, 5, "s1")), write(chunk(3, 5, MaxKey(), "s1")))


def test_ranges_that_are_cut_and_joined_have_not_moved() -> None:
    gone = operation("d", "config.chunks", TABLE, {"_id": 3})
    join = together(12, write(chunk(2, 0, MaxKey(), "s1")), gone)
    found = followed(CUT, join)
    assert found.change is None
    assert difference(found.distribution, tables(), {}) is None
    assert difference(followed(CUT).distribution, tables(), {}) is None


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (update(12, TABLE, 2, "config.chunks", shard="s0"), "a range of shop.a moved (to s0)"),
        (
            CUT + together(12, write(chunk(3, 5, MaxKey(), "s0"))),
            "a range of shop.a moved (to s0) at 1970-01-01T00:16:40Z (1000,12)",
        ),
        (
            together(12, write(chunk(2, 0, 5, "s0")), write(chunk(3, 5, MaxKey(), "s1"))),
            "a range of shop.a moved (to s0)",
        ),
        (delete(12, TABLE, "shop.a", "config.collections"), "shop.a was dropped"),
        (delete(12, TABLE, "shop", "config.databases"), "the database shop was dropped"),
        (update(12, TABLE, "shop", "config.databases", primary="s1"), "the primary shard s1"),
        (
            update(12, TABLE, "shop.a", "config.collections", key={"k": 1, "j": 1}),
            "the shard key of shop.a was changed",
        ),
        (
            insert(12, TABLE, "shop.b", "config.collections", uuid=uuid(2), key={"k": 1}),
            "shop.b was sharded",
        ),
        (insert(12, TABLE, "s2", "config.shards", host="rs/h"), "the shard s2 was added"),
    ],
)
def test_what_a_replay_cannot_bring_along_is_named(log: bytes, words: str) -> None:
    change = followed(log).change
    assert change is not None
    assert words in change


def test_only_the_span_counts_and_a_move_there_and_back_too() -> None:
    def moved(at: int, shard: str) -> bytes:
        return update(at, TABLE, 2, "config.chunks", shard=shard)

    before = followed(moved(9, "s0"), moved(10, "s1"))
    assert before.change is None
    assert followed(moved(21, "s0")).change is None
    back = followed(moved(12, "s0"), moved(13, "s1"))
    assert back.change is not None
    assert difference(back.distribution, tables(), {}) is None


def test_a_transaction_counts_as_a_whole() -> None:
    first, last = write(chunk(2, 0, 5, "s1")), write(chunk(3, 5, MaxKey(), "s1"))
    chain = applied(11, [first], partialTxn=True) + applied(12, [last], previous=11, count=2)
    assert followed(chain).change is None


def test_new_databases_zones_and_the_clusters_own_collections_do_not_matter() -> None:
    own = {"uuid": uuid(5), "key": {"_id": 1}}
    found = followed(
        insert(11, TABLE, "late", "config.databases", primary="s1"),
        insert(12, TABLE, "config.system.sessions", "config.collections", **own),
        insert(13, TABLE, 7, "config.tags", tag="zone"),
        entry(14, write(chunk(7, 0, 1, "s0", uuid(5)), op="i")),
        entry(15, operation("n", "config.chunks", TABLE, {"msg": "nothing"})),
    )
    assert found.change is None
    assert found.has_new_zones
    assert found.new_databases == {"late"}
    words = difference(found.distribution, tables(), {"s1": "t1"})
    assert words == "the database late, with the primary shard t1, is not here"


def test_bounds_that_changed_within_are_followed() -> None:
    """A refined shard key: where bounds are long, the server writes only what was added to them."""

    def refined(identity: int) -> Row:
        added = {"i": {"j": MinKey()}}
        diff = {"$v": 2, "diff": {"d": {"jumbo": False}, "smin": added, "smax": added}}
        return operation("u", "config.chunks", TABLE, diff, {"_id": identity})

    key = {"$v": 2, "diff": {"skey": {"i": {"j": 1}}}}
    log = [
        operation("u", "config.collections", TABLE, key, {"_id": "shop.a"}),
        *map(refined, (1, 2)),
    ]
    here = tables()
    here.put("config.collections", {"_id": "shop.a", "uuid": uuid(1), "key": {"k": 1, "j": 1}})
    for identity, low, high, shard in ((1, MinKey(), 0, "s0"), (2, 0, MaxKey(), "s1")):
        bounds = {"min": {"k": low, "j": MinKey()}, "max": {"k": high, "j": MinKey()}}
        here.put("config.chunks", {**chunk(identity, low, high, shard), **bounds})
    found = followed(together(9, *log))
    assert found.change is None
    assert difference(found.distribution, here, {}) is None


def test_tables_agree_under_the_names_that_shards_have_here() -> None:
    here = tables()
    here.put("config.databases", {"_id": "shop", "primary": "t0"})
    here.put("config.chunks", chunk(1, MinKey(), 0, "t0"))
    here.put("config.chunks", chunk(2, 0, MaxKey(), "s1"))
    here.put("config.collections", {"_id": "more.b", "uuid": uuid(3), "key": {"k": 1}})
    assert difference(tables(), here, {"s0": "t0", "s1": "s1"}) is None
    words = difference(tables(), here, {"s0": "s0", "s1": "s1"})
    assert words == "the primary shard of the database shop is t0 here and was s0"


def test_where_tables_differ_is_said() -> None:
    def words_after(table: str, row: Row) -> str | None:
        here = tables()
        here.put(table, row)
        return difference(tables(), here, {})

    other = {"_id": "shop.a", "uuid": uuid(1), "key": {"k": "hashed"}}
    assert words_after("config.chunks", chunk(2, 0, MaxKey(), "s0")) == (
        "ranges of shop.a belong to other shards here"
    )
    assert words_after("config.collections", other) == "the shard key of shop.a is another one here"
    more = {"_id": "shop.b", "uuid": uuid(2), "key": {"k": 1}}
    assert words_after("config.collections", more) == "shop.b is sharded here and was not"
    here = tables()
    here.remove("config.collections", "shop.a")
    assert difference(tables(), here, {}) == "shop.a was sharded and is not here"
