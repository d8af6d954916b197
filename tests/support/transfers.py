"""Money moves between accounts on different shards, and whoever restores must account for it.

Each transfer is one two-phase transaction over two shards: it changes both balances and writes one
entry beside each account. So at any moment the sum of all balances is nought, every transfer has
both of its entries or none, and each balance is the sum of its account's entries. What was
acknowledged is kept with the cluster times before it began and after it was acknowledged: a restore
to T holds what was acknowledged at or before T, and nothing that began at or after T.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bson import Timestamp
from pymongo.errors import PyMongoError

from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.mongod.crossing import CrossShardSession
from tests.support.mongod.replset import Client

DATABASE = "bank"
ACCOUNTS = "accounts"
ENTRIES = "entries"
_STRIDE = 1_000
"""Accounts of one shard lie in one range of so many numbers."""

Moment = tuple[int, int]
"""`(T, I)`."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One transfer that was tried. `acknowledged_at` is None where its outcome is not known."""

    id: str
    source: int
    target: int
    amount: int
    began_at: Moment
    acknowledged_at: Moment | None


class Transfers:
    """Threads that move money until stopped. A context manager; leaving it stops them."""

    def __init__(
        self,
        cluster: ShardedCluster,
        *,
        accounts: int = 20,
        threads: int = 4,
        seed: int = 1,
        pause_s: float = 0.0,
        padding: int = 0,
    ) -> None:
        self.done: list[Transfer] = []
        """In no order. Complete once stopped."""
        self.errors: list[str] = []
        self._cluster = cluster
        self._accounts = accounts
        self._seed = seed
        self._pause_s = pause_s
        self._padding = "x" * padding
        self._stop = threading.Event()
        self._may_go = threading.Event()
        self._may_go.set()
        self._lock = threading.Lock()
        self._underway = 0
        self._threads = [
            threading.Thread(target=self._work, args=(number,), daemon=True)
            for number in range(threads)
        ]

    def create(self) -> None:
        """The database, both collections spread over all shards, and the accounts, empty."""
        cluster = self._cluster
        cluster.create_database(DATABASE)
        splits = [n * _STRIDE for n in range(1, len(cluster.shards))]
        for collection, key in ((ACCOUNTS, "_id"), (ENTRIES, "account")):
            cluster.shard_collection(f"{DATABASE}.{collection}", {key: 1})
            cluster.spread(f"{DATABASE}.{collection}", key, splits)
        for number, shard in enumerate(cluster.shards):
            rows = [{"_id": number * _STRIDE + n, "balance": 0} for n in range(self._accounts)]
            cluster.client_of(shard)[DATABASE][ACCOUNTS].insert_many(rows)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the threads; `done` is complete then."""
        self._stop.set()
        self._may_go.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a transfer hangs"

    @contextlib.contextmanager
    def quiesced(self, within_s: float = 30.0) -> Any:
        """No transfer is under way inside of it."""
        self._may_go.clear()
        try:
            eventually(lambda: self._underway == 0, within_s)
            yield
        finally:
            self._may_go.set()

    def wait_for(self, more: int, within_s: float = 30.0) -> None:
        """Until so many more transfers were acknowledged."""
        before = self.acknowledged
        eventually(lambda: self.acknowledged >= before + more, within_s, describe=self._said)

    @property
    def acknowledged(self) -> int:
        """How many transfers were acknowledged."""
        return sum(one.acknowledged_at is not None for one in list(self.done))

    def _said(self) -> str:
        return "\n".join(self.errors[-5:])

    def _work(self, worker: int) -> None:
        rng = random.Random(f"{self._seed}/{worker}")
        with CrossShardSession(self._cluster) as session:
            number = 0
            while not self._stop.is_set():
                self._may_go.wait()
                with self._lock:
                    self._underway += 1
                try:
                    number += 1
                    self._transfer(session, rng, f"{self._seed}-{worker}-{number}")
                finally:
                    with self._lock:
                        self._underway -= 1
                time.sleep(self._pause_s)

    def _transfer(self, session: CrossShardSession, rng: random.Random, name: str) -> None:
        shards = list(self._cluster.shards)
        first, second = rng.sample(range(len(shards)), 2)
        source = first * _STRIDE + rng.randrange(self._accounts)
        target = second * _STRIDE + rng.randrange(self._accounts)
        amount = rng.randrange(1, 100)
        session.begin()
        acknowledged_at: Moment | None = None
        try:
            began_at = moment_now(self._cluster.client_of(shards[first]))
            for shard, account, change in (
                (shards[first], source, -amount),
                (shards[second], target, amount),
            ):
                self._book(session, shard, name, account, change)
        except PyMongoError as error:  # a write conflict, a step-down: nothing happened
            self.errors.append(str(error)[:200])
            session.abort()
            return
        try:
            acknowledged_at = _moment_of(session.commit())
        except PyMongoError as error:
            self.errors.append(str(error)[:200])
        self.done.append(Transfer(name, source, target, amount, began_at, acknowledged_at))

    def _book(
        self, session: CrossShardSession, shard: str, name: str, account: int, change: int
    ) -> None:
        update = {"q": {"_id": account}, "u": {"$inc": {"balance": change}}}
        session.run(shard, DATABASE, {"update": ACCOUNTS, "updates": [update]})
        entry: dict[str, Any] = {"_id": f"{name}/{account}", "transfer": name, "account": account}
        entry["change"] = change
        if self._padding:
            entry["padding"] = self._padding
        session.run(shard, DATABASE, {"insert": ENTRIES, "documents": [entry]})


def check_books(clients: Iterable[Client]) -> set[str]:
    """The books of these shards balance; answers the transfers that are in them."""
    accounts: list[dict[str, Any]] = []
    entries: list[dict[str, Any]] = []
    for client in clients:
        accounts += client[DATABASE][ACCOUNTS].find()
        entries += client[DATABASE][ENTRIES].find({}, {"padding": 0})
    return check_rows(accounts, entries)


def check_rows(accounts: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]]) -> set[str]:
    """The same of documents, wherever they are from."""
    balances: dict[int, int] = {}
    entries: dict[str, list[tuple[int, int]]] = {}
    for row in accounts:
        assert row["_id"] not in balances, f"account {row['_id']} is there twice"
        balances[row["_id"]] = row["balance"]
    for row in rows:
        entries.setdefault(row["transfer"], []).append((row["account"], row["change"]))
    assert sum(balances.values()) == 0, f"the total is {sum(balances.values())}"
    booked = dict.fromkeys(balances, 0)
    for name, sides in entries.items():
        assert len(sides) == 2, f"transfer {name} has {len(sides)} entries: {sides}"
        assert sides[0][1] == -sides[1][1], f"the sides of transfer {name} differ: {sides}"
        for account, change in sides:
            booked[account] += change
    assert booked == balances, "a balance is not the sum of its entries"
    return set(entries)


def check_moment(present: set[str], transfers: Iterable[Transfer], moment: Moment) -> None:
    """`present` is what may be there at `moment`, no more and no less."""
    for one in transfers:
        if one.acknowledged_at is not None and one.acknowledged_at <= moment:
            assert one.id in present, f"{one} was acknowledged by {moment} and is lost"
        if one.began_at >= moment:
            assert one.id not in present, f"{one} began after {moment} and is there"


def moment_now(client: Client) -> Moment:
    return _moment_of(client.admin.command("ping"))


def _moment_of(answer: dict[str, Any]) -> Moment:
    stamp: Timestamp = answer["$clusterTime"]["clusterTime"]
    return stamp.time, stamp.inc
