"""The seeded data sets. A and B are documents as applications have them, C is many collections, D
is a history of small operations. Sizes are those at scale 1."""

from __future__ import annotations

import random
import resource
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bson import ObjectId, encode
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteOne, InsertOne, UpdateOne

A_DOCUMENTS = 2_000_000
B_DOCUMENTS = 20_000
C_COLLECTIONS = 20_000
D_OPERATIONS = 1_000_000
D_COLLECTIONS = 8
E_DOCUMENTS = 2_500_000
_OTHER_FILES = 2_000
"""Of the server that holds C: connections, the oplog, its own collections."""
_BATCH = 10_000
_GROUP = 500
_WORDS = [f"w{number:05d}" for number in range(5_000)]


def load_a(client: Any, scale: float, name: str = "docs", *, seed: int = 1) -> None:
    """`bench.docs`: about 500 B each, two secondary indexes."""
    rng = random.Random(seed)
    collection = client.bench[name]
    count = int(A_DOCUMENTS * scale)
    for first in range(0, count, _BATCH):
        rows = range(first, min(count, first + _BATCH))
        collection.insert_many([_document(rng, row) for row in rows], ordered=False)
    collection.create_index("user")
    collection.create_index([("name", 1), ("created", 1)])


def _document(rng: random.Random, row: int) -> RawBSONDocument:
    return RawBSONDocument(
        encode(
            {
                "_id": ObjectId(),
                "user": rng.randrange(10**6),
                "name": rng.choice(_WORDS),
                "created": 1_700_000_000_000 + row * 997,
                "tags": rng.choices(_WORDS, k=6),
                "score": rng.random(),
                "text": " ".join(rng.choices(_WORDS, k=30)),
                "active": bool(row & 1),
                "hex": f"{rng.getrandbits(128):032x}",
            }
        )
    )


def load_b(client: Any, scale: float) -> None:
    """`bench.blobs`: about 10 KB each, half of it random."""
    rng = random.Random(2)
    count = int(B_DOCUMENTS * scale)
    for first in range(0, count, 500):
        client.bench.blobs.insert_many(
            {
                "_id": row,
                "random": rng.randbytes(5_000),
                "text": " ".join(rng.choices(_WORDS, k=700)),
            }
            for row in range(first, min(count, first + 500))
        )


def c_collections(scale: float) -> int:
    """How many collections C has: mongod holds two files of each open, those of a dropped one for a
    while, too, and dies where it is granted no more descriptors."""
    granted = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(int(C_COLLECTIONS * scale), max(1, (granted - _OTHER_FILES) // 4))


def load_c(client: Any, count: int) -> None:
    """`many.c…`: so many collections of five documents each."""

    def fill(number: int) -> None:
        client.many[f"c{number:05d}"].insert_many({"_id": i, "n": number} for i in range(5))

    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(fill, range(count)):
            pass


def load_e(client: Any, scale: float) -> None:
    """`bench.large`: one collection, about 2 KB each, half of it random."""
    rng = random.Random(5)
    noise, text = rng.randbytes(1 << 20), " ".join(rng.choices(_WORDS, k=1 << 17))
    count = int(E_DOCUMENTS * scale)
    for first in range(0, count, _BATCH):
        client.bench.large.insert_many(
            {
                "_id": row,
                "random": noise[(at := rng.randrange(len(noise) - 1_000)) : at + 1_000],
                "text": text[(at := rng.randrange(len(text) - 950)) : at + 950],
            }
            for row in range(first, min(count, first + _BATCH))
        )


def prepare_d(client: Any, database: str = "history") -> None:
    """The empty collections in which history D happens."""
    for number in range(D_COLLECTIONS):
        client[database][f"c{number}"].create_index("k")


def write_d(client: Any, scale: float) -> int:
    """Half inserts, a third updates, the rest deletes, each of a row that is there, so that each is
    an entry of the oplog; answers how many. The server is sent each group's inserts, then its
    updates, then its deletes: one command of each instead of hundreds."""
    rng = random.Random(4)
    count, inserted, done = int(D_OPERATIONS * scale), 0, 0
    rows: list[list[int]] = [[] for _ in range(D_COLLECTIONS)]
    while done < count:
        number = rng.randrange(D_COLLECTIONS)
        present = rows[number]
        operations: list[Any] = []
        for _ in range(_GROUP):
            dice = rng.random()
            if dice < 0.5 or len(present) < 100:
                row = {"_id": inserted, "k": inserted % 97, "t": "x" * 200, "v": rng.random()}
                operations.append(InsertOne(row))
                present.append(inserted)
                inserted += 1
            elif dice < 0.85:
                change = {"$set": {"v": rng.random()}, "$inc": {"n": 1}}
                operations.append(UpdateOne({"_id": rng.choice(present)}, change))
            else:
                place = rng.randrange(len(present))
                present[place], present[-1] = present[-1], present[place]
                operations.append(DeleteOne({"_id": present.pop()}))
        client.history[f"c{number}"].bulk_write(operations, ordered=False)
        done += _GROUP
    return count
