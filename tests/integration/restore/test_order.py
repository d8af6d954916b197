"""Our keys sort `_id`s as the server's index does."""

from __future__ import annotations

import random
from typing import Any, cast

import bson
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument

from agent.mongo.bsonkey import id_key
from tests.support.documents import RAW
from tests.support.mongod import ReplicaSet
from tests.unit.mongo.test_bsonkey import IN_ORDER


def scalar(rng: random.Random) -> Any:
    number = rng.choice([0, 1, -1, 2, 7, 2**31 - 1, 2**53, 2**53 + 1, -(2**62)])
    text = "".join(rng.choice("ab\0é") for _ in range(rng.randint(0, 3)))
    return rng.choice(
        [
            Int64(number),
            float(number),
            number + rng.choice([0.1, 0.5, -0.25]),
            Decimal128(str(number)),
            Decimal128(f"{number}.5"),
            rng.choice([float("inf"), float("-inf"), float("nan"), -0.0]),
            text,
            Binary(text.encode(), rng.choice([0, 5])),
            ObjectId(rng.randbytes(12)),
            rng.random() < 0.5,
            DatetimeMS(number),
            Timestamp(rng.randint(0, 3), rng.randint(0, 3)),
            Regex(text.replace("\0", ""), rng.choice(["", "i"])),
            Code(text),
            Code(text, {"a": number}),
            None,
        ]
    )


def value(rng: random.Random, depth: int = 2) -> Any:
    roll = rng.random()
    if depth and roll < 0.25:
        return {rng.choice("abc"): value(rng, depth - 1) for _ in range(rng.randint(0, 3))}
    if depth and roll < 0.35:
        return [value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    return scalar(rng)


def test_keys_sort_as_the_index_does(one_node: ReplicaSet) -> None:
    rng = random.Random(11)
    collection = one_node.client()["db"].get_collection("c", codec_options=RAW)
    wanted: dict[Any, bytes] = {}
    for identity in [*IN_ORDER, *(value(rng) for _ in range(3000))]:
        if not isinstance(identity, list | Regex):  # which no server stores as an `_id`
            raw = bson.encode({"_id": identity})
            wanted.setdefault(id_key(raw), raw)
    # The index refuses what it holds equal, so our keys tell apart no more than it does.
    collection.insert_many([RawBSONDocument(raw) for raw in wanted.values()])
    found = [bytes(cast(RawBSONDocument, one).raw) for one in collection.find().sort("_id", 1)]
    assert [id_key(raw) for raw in found] == sorted(wanted)
