"""The bulk of the demo's data: large enough to watch its backup go on, and changes to it."""

from __future__ import annotations

import random
import threading
from typing import Any, Final, Self

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.write_concern import WriteConcern

_BATCH: Final = 2_000
_TEXT: Final = 900
_NOISE: Final = 500


def load(client: MongoClient[dict[str, Any]], size_mb: int) -> int:
    """Insert about so many megabytes of documents and index them; returns how many."""
    collection = client["harbour"]["readings"]
    rng = random.Random(11)
    # Half text, half noise: compresses about as well as data of real life.
    noise = rng.randbytes(64 * 1024)
    text = " ".join(rng.choice(["tide", "harbour", "moon", "current"]) for _ in range(4_000))
    size = len(bson.encode(_document(0, noise, text)))
    documents = (size_mb << 20) // size
    for start in range(0, documents, _BATCH):
        batch = [
            RawBSONDocument(bson.encode(_document(number, noise, text)))
            for number in range(start, min(start + _BATCH, documents))
        ]
        command = {"insert": collection.name, "documents": batch, "writeConcern": {"w": 1}}
        collection.database.command(command)
    collection.create_index([("station", 1), ("n", -1)])
    return documents


class Changes:
    """Updates, deletes and inserts all over the bulk, in a thread; a context manager."""

    def __init__(
        self, client: MongoClient[dict[str, Any]], documents: int, seed: int, rate: float
    ) -> None:
        self._collection = client["harbour"].get_collection(
            "readings", write_concern=WriteConcern(w=1)
        )
        self._documents = documents
        self._random = random.Random(seed)
        self._pause_s = 1.0 / rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._change, name="changes", daemon=True)
        self.made = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _change(self) -> None:
        rng = self._random
        while not self._stopping.wait(self._pause_s):
            query = {"_id": rng.randrange(self._documents)}
            form = rng.randrange(4)
            if form == 0:
                self._collection.delete_one(query)
            elif form == 1:
                self._collection.replace_one(query, {"n": -1, "station": "new"}, upsert=True)
            else:
                change = {"$inc": {"n": 1}, "$set": {f"changed {form}": rng.random()}}
                self._collection.update_one(query, change)
            self.made += 1


def _document(number: int, noise: bytes, text: str) -> dict[str, Any]:
    start = number * 37 % (len(noise) - _NOISE)
    return {
        "_id": number,
        "n": number,
        "station": f"station {number % 97}",
        "noise": noise[start : start + _NOISE],
        "text": text[start % 20_000 :][:_TEXT],
    }
