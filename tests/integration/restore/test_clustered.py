"""Clustered collections say of some duplicates that they are, and of others something else."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson import Decimal128, Int64

from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.inserting import insert, inserting
from agent.mongo.apply.operations import apply_writes
from tests.support.mongod import ReplicaSet
from tests.support.restoring import open_node

DECIMALS = ("5", "5.00", "5.125", "-5.3", "0.1", "1E-10", "1E+30", "9007199254740993.1", "NaN")
KEYS = [*map(Decimal128, DECIMALS), 0.5, -0.1, 1e300, Int64(2**62), "a", b"b", {"c": 1.5}]


@pytest.mark.parametrize("options", [{}, {"clusteredIndex": {"key": {"_id": 1}, "unique": True}}])
async def test_what_a_lost_worker_had_written_is_written_again(
    one_node: ReplicaSet, options: dict[str, Any]
) -> None:
    database = one_node.client()["db"]
    database.create_collection("c", check_exists=False, **options)
    rows: list[dict[str, Any]] = [{"_id": key, "n": n} for n, key in enumerate(KEYS[1:])]
    documents = [RawDocument(bson.encode(row)) for row in rows]
    newer = {"_id": Decimal128("7.7"), "n": 1}
    node = await open_node(one_node)
    try:
        for is_again in (False, True):
            await insert(node, "db.c", documents, may_exist=is_again)
        assert list(database["c"].find().sort("n")) == rows
        for more in (100, 200):
            again = [{**row, "n": row["n"] + more} for row in rows]
            writes = [inserting("db.c", bson.encode(row)) for row in (*again, newer)]
            removal = {"op": "d", "ns": "db.c", "o": {"_id": newer["_id"]}}
            writes.append(RawDocument(bson.encode(removal)))
            await apply_writes(node, writes, is_lenient=False)
            assert list(database["c"].find().sort("n")) == again
    finally:
        await node.aclose()
