"""Many small collections: their limits, and what `mongodump` and `mongorestore` ask of the server.

The model of the two tools sends the commands that they send, in the same order and with as many
collections at a time (four), from bare connections, and throws away what comes back. What the
tools do beside it (files, metadata, BSON) is not in it. The driver here is Python's, and its own
share is in the model's wall seconds; mongod's processor seconds are free of it.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import Any

from bson import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern
from pymongo.client_session import ClientSession

from bench.rig import Measure, Rig

AT_ONCE = 4
"""Collections that the tools handle side by side, unless told otherwise."""
_RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)
_TOGETHER = 50
DATABASE, MODEL = "many", "model"


class Many:
    """The limits on one rig, round by round."""

    def __init__(self, rig: Rig, count: int) -> None:
        self._rig = rig
        self._names = [f"c{n:05d}" for n in range(count)]
        self.measures = defaultdict[str, list[Measure]](list)

    def read(self) -> None:
        """A `find` of each, and what `mongodump` asks."""
        self._each("raw finds", self._find)
        self._each("as mongodump", self._dump)

    def write(self) -> None:
        """Into an empty database: inserts that create, in transactions, which is the fastest way
        found; and what `mongorestore --drop` asks, over what these made."""
        groups = [
            self._names[first : first + _TOGETHER]
            for first in range(0, len(self._names), _TOGETHER)
        ]
        with self._rig.measured() as cost, ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._insert_together, groups))
        self.measures["raw creates and inserts"].append(cost())
        self._each("as mongorestore --drop", partial(self._restore, MODEL))
        self._rig.client.drop_database(MODEL)
        self._rig.settle()

    def median(self, what: str) -> float:
        """Wall seconds."""
        return median(run.wall_s for run in self.measures[what])

    def _each(self, what: str, work: Any) -> None:
        with self._rig.measured() as cost, ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, self._names))
        self.measures[what].append(cost())

    def _find(self, name: str) -> None:
        self._rig.client[DATABASE].command({"find": name}, codec_options=_RAW)

    def _dump(self, name: str) -> None:
        database = self._rig.client[DATABASE]
        database.command({"listIndexes": name}, codec_options=_RAW)
        database.command({"count": name})
        database.command({"find": name}, codec_options=_RAW)

    def _restore(self, database: str, name: str) -> None:
        target = self._rig.client[database]
        target.command({"drop": name})
        target.command({"create": name, "idIndex": {"v": 2, "key": {"_id": 1}, "name": "_id_"}})
        rows = [{"_id": row, "n": 1} for row in range(5)]
        target.command({"insert": name, "documents": rows, "ordered": False})

    def _insert_together(self, names: list[str]) -> None:
        target, client = self._rig.client[MODEL], self._rig.client
        rows = [{"_id": row, "n": 1} for row in range(5)]

        def insert(session: ClientSession) -> None:
            for name in names:
                target.command({"insert": name, "documents": rows}, session=session)

        with client.start_session(causal_consistency=False) as session:
            # Again where it is told to: a lock is waited for no longer than 5 ms.
            session.with_transaction(insert, write_concern=WriteConcern(1))
