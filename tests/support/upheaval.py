"""Structure of a sharded cluster in change: collections sharded, filled, moved, refined, renamed,
dropped and created anew under another key, time series among them. By a seed, one step a call."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pymongo.errors import BulkWriteError, WriteError

from tests.support.mongod import ShardedCluster

DATABASE: Final = "shop"
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NAMES: Final = ("one", "two", "three", "four")
_ROWS: Final = 40
_STATUS_NOT_KNOWN: Final = "13388"


class Upheaval:
    """Changes the database `shop`, and nothing else. Only one may be at work."""

    def __init__(self, cluster: ShardedCluster, seed: int) -> None:
        self.steps: list[str] = []
        """What was done, for messages."""
        self._cluster = cluster
        self._rng = random.Random(f"upheaval/{seed}")
        self._keys: dict[str, tuple[str, ...]] = {}
        """Names of sharded collections with the fields of their keys."""
        self._series: set[str] = set()
        self._number = 0

    def create(self) -> None:
        """The database, on the last shard, with what a cluster has that is not sharded."""
        home = list(self._cluster.shards)[-1]
        self._cluster.create_database(DATABASE, home)
        self._client(home)["plain"].insert_many([{"_id": n} for n in range(_ROWS)])
        for _ in range(3):
            self.step()

    def step(self) -> None:
        """Change something."""
        choices: list[Callable[[], str]] = [self._make, self._make_series, self._fill]
        if self._keys:
            choices += [self._drop, self._make_anew, self._move, self._rename, self._refine]
        self.steps.append(self._rng.choice(choices)())

    def _client(self, shard: str) -> Any:
        return self._cluster.client_of(shard)[DATABASE]

    def _make(self) -> str:
        free = [name for name in _NAMES if name not in self._keys]
        if not free:
            return self._drop()
        name = self._rng.choice(free)
        self._shard(name, self._rng.choice(("a", "b")))
        return f"make {name}"

    def _shard(self, name: str, key: str) -> None:
        where = f"{DATABASE}.{name}"
        self._cluster.shard_collection(where, {key: 1})
        self._cluster.spread(where, key, [100])
        self._keys[name] = (key,)
        self._insert(name)

    def _make_series(self) -> str:
        if len(self._series) > 1:
            return self._drop_series()
        self._number += 1
        name = f"series{self._number}"
        self._cluster.shard_collection(
            f"{DATABASE}.{name}",
            {"meta": 1},
            timeseries={"timeField": "t", "metaField": "meta"},
        )
        self._cluster.spread(f"{DATABASE}.system.buckets.{name}", "meta", [100])
        self._series.add(name)
        self._measure(name)
        return f"make {name}"

    def _measure(self, name: str) -> None:
        self._number += 1
        for number, shard in enumerate(self._cluster.shards):
            at = _EPOCH + timedelta(minutes=self._number)
            # Below 100 is the first shard's, the rest the second's.
            rows = [{"t": at, "meta": 100 * number + n % 5, "v": n} for n in range(_ROWS)]
            if number < 2:
                self._put(shard, name, rows)

    def _drop_series(self) -> str:
        name = self._rng.choice(sorted(self._series))
        self._cluster.drop_collection(f"{DATABASE}.{name}")
        self._series.discard(name)
        return f"drop {name}"

    def _fill(self) -> str:
        for name in self._keys:
            self._insert(name)
        for name in sorted(self._series):
            self._measure(name)
        home = list(self._cluster.shards)[-1]
        self._look(lambda: self._client(home)["plain"].update_many({}, {"$inc": {"n": 1}}))
        return "fill"

    def _insert(self, name: str) -> None:
        """Rows to where their ranges are."""
        self._number += 1
        key = self._keys[name][0]
        rows: list[dict[str, Any]] = [
            {"_id": f"{self._number}/{n}", "a": n * 5, "b": (n * 35) % 200, "c": self._number}
            for n in range(_ROWS)
        ]
        chunks = self._cluster.chunks(f"{DATABASE}.{name}")
        for shard in self._cluster.shards:
            own = [c for c in chunks if c["shard"] == shard]
            there = [row for row in rows if any(_holds(chunk, key, row[key]) for chunk in own)]
            if there:
                self._put(shard, name, there)

    def _put(self, shard: str, name: str, rows: list[dict[str, Any]]) -> None:
        self._look(lambda: self._client(shard)[name].insert_many(rows))

    def _look(self, write: Callable[[], Any]) -> None:
        """Write; again where a new primary has yet to look whether the collection is sharded, as a
        router would. Such a refusal comes before anything is written."""
        for _ in range(100):
            try:
                write()
            except (BulkWriteError, WriteError) as error:
                if _STATUS_NOT_KNOWN not in str(error):
                    raise
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the shard does not look at its routing")

    def _drop(self) -> str:
        name = self._rng.choice(sorted(self._keys))
        self._cluster.drop_collection(f"{DATABASE}.{name}")
        del self._keys[name]
        return f"drop {name}"

    def _make_anew(self) -> str:
        name = self._rng.choice(sorted(self._keys))
        key = "b" if self._keys[name][0] == "a" else "a"
        self._cluster.drop_collection(f"{DATABASE}.{name}")
        self._shard(name, key)
        return f"make {name} anew by {key}"

    def _move(self) -> str:
        name = self._rng.choice(sorted(self._keys))
        chunk = self._rng.choice(self._cluster.chunks(f"{DATABASE}.{name}"))
        to = self._rng.choice([shard for shard in self._cluster.shards if shard != chunk["shard"]])
        self._cluster.move_range(f"{DATABASE}.{name}", to, chunk["min"], chunk["max"])
        return f"move a range of {name} to {to}"

    def _rename(self) -> str:
        free = [name for name in _NAMES if name not in self._keys]
        if not free:
            return self._drop()
        name, to = self._rng.choice(sorted(self._keys)), self._rng.choice(free)
        self._cluster.rename_collection(f"{DATABASE}.{name}", f"{DATABASE}.{to}")
        self._keys[to] = self._keys.pop(name)
        return f"rename {name} to {to}"

    def _refine(self) -> str:
        plain = sorted(name for name, key in self._keys.items() if len(key) == 1)
        if not plain:
            return self._drop()
        name = self._rng.choice(plain)
        wanted = {self._keys[name][0]: 1, "c": 1}
        for shard in self._cluster.shards:
            # A shard without a part of it has no collection, and gets the index with its first.
            owners = {chunk["shard"] for chunk in self._cluster.chunks(f"{DATABASE}.{name}")}
            if shard in owners or self._client(shard)[name].find_one() is not None:
                self._client(shard)[name].create_index(list(wanted.items()))
        self._cluster.refine_key(f"{DATABASE}.{name}", wanted)
        self._keys[name] = tuple(wanted)
        return f"refine {name}"


def _holds(chunk: dict[str, Any], key: str, value: int) -> bool:
    low, high = chunk["min"][key], chunk["max"][key]
    above = not isinstance(low, int | float) or low <= value
    below = not isinstance(high, int | float) or value < high
    return above and below
