"""A ledger of acknowledged writes: what a restore to any moment must hold, and what it must not.

Each writer inserts and deletes documents with majority write concern, one by one and in
transactions, and notes the OpTime that the server gave with the acknowledgement. A write whose
outcome or moment is not certain (the connection broke, a commit was sent twice) is noted with the
bounds that are: it may be in a restore between them. Everything else has to be exact.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from bson.timestamp import Timestamp
from pymongo import MongoClient, monitoring
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

Moment = tuple[int, int]
Key = tuple[str, str]

DATABASES: Final = ("ledger", "ledger-2")
COLLECTIONS: Final = 6
NEVER: Final[Moment] = (2**32, 0)
_JOIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """A change that is certainly there from `surely` on, and certainly not before `earliest`."""

    earliest: Moment
    surely: Moment


@dataclass(slots=True)
class _Entry:
    inserted: Bounds
    deleted: Bounds | None = None


@dataclass
class Verdict:
    """How a restored set differs from the ledger; both empty when it does not."""

    missing: list[Key] = field(default_factory=list)
    unexpected: list[Key] = field(default_factory=list)
    checked: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether nothing is missing and nothing is too much."""
        return not self.missing and not self.unexpected


class _Failures(monitoring.CommandListener):
    """Counts failed commands for each thread: a command that was sent again has no exact moment."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def count(self) -> int:
        """Of the calling thread."""
        return int(getattr(self._local, "count", 0))

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Of no interest."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Of no interest."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Count it."""
        self._local.count = self.count + 1


class Ledger:
    """Writes with several threads until stopped. `with Ledger(uri, seed=1) as ledger: …`."""

    def __init__(
        self,
        uri: str,
        seed: int,
        *,
        writers: int = 4,
        rate: float = 40.0,
        prepared: bool = True,
        large_every: int = 0,
    ) -> None:
        self._uri = uri
        self.seed = seed
        self._writers = writers
        self._pause_s = 1.0 / rate if rate else 0.0
        self._prepared = prepared
        self._large_every = large_every
        self._listener = _Failures()
        self._client: MongoClient[dict[str, Any]] | None = None
        self._entries: dict[Key, _Entry] = {}
        self._moments: list[Moment] = []
        self._lock = threading.Lock()
        self._fragile = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._unexpected: BaseException | None = None
        self.acknowledged = 0
        self.uncertain = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.close()

    def start(self) -> Self:
        """Write from now on."""
        self._stopping.clear()
        if self._client is None:
            self._client = MongoClient(
                self._uri,
                retryWrites=False,
                w="majority",
                wTimeoutMS=20_000,
                serverSelectionTimeoutMS=10_000,
                socketTimeoutMS=20_000,
                event_listeners=[self._listener],
            )
            self._prepare_collections()
        first = len(self._threads)
        self._threads = [
            threading.Thread(target=self._write_on, args=(first + n,), daemon=True)
            for n in range(self._writers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Stop after the writes under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_JOIN_S)
            assert not thread.is_alive(), "a writer hangs"
        self._threads = []
        if self._unexpected is not None:
            raise self._unexpected

    def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def calm(self) -> Iterator[None]:
        """No prepared transaction is open meanwhile: for who is about to kill the primary."""
        with self._fragile:
            yield

    def moments(self) -> list[Moment]:
        """The exact moments of acknowledged writes, ascending."""
        with self._lock:
            return sorted(self._moments)

    def judge(self, client: MongoClient[dict[str, Any]], at: Moment) -> Verdict:
        """Compare what is there with what the ledger says of a moment, which is inclusive."""
        found = {
            (f"{database}.{name}", document["_id"])
            for database in DATABASES
            for name in self._names()
            for document in client[database][name].find({}, {"_id": 1})
        }
        with self._lock:
            must, may = self._expected(at)
        return Verdict(sorted(must - found)[:20], sorted(found - may)[:20], len(found))

    def _expected(self, at: Moment) -> tuple[set[Key], set[Key]]:
        must: set[Key] = set()
        may: set[Key] = set()
        for key, entry in self._entries.items():
            gone = entry.deleted
            if entry.inserted.earliest <= at and not (gone and gone.surely <= at):
                may.add(key)
                if entry.inserted.surely <= at and not (gone and gone.earliest <= at):
                    must.add(key)
        return must, may

    @staticmethod
    def _names() -> list[str]:
        return [f"c{number}" for number in range(COLLECTIONS)]

    def _prepare_collections(self) -> None:
        assert self._client is not None
        for database in DATABASES:
            for name in self._names():
                self._client[database].create_collection(name)
            self._client[database].c0.create_index("n")
            self._client[database].c1.create_index("serial", unique=True)

    def _write_on(self, writer: int) -> None:
        rng = random.Random(f"{self.seed}/{writer}/{time.monotonic_ns()}")
        serial = 0
        mine: list[Key] = []
        try:
            while not self._stopping.is_set():
                serial += 1
                self._one(rng, f"{writer}-{time.monotonic_ns():x}-{serial}", serial, mine)
                if self._pause_s:
                    self._stopping.wait(rng.uniform(0, 2 * self._pause_s))
        except BaseException as error:
            self._unexpected = error

    def _one(self, rng: random.Random, tag: str, serial: int, mine: list[Key]) -> None:
        keys = [self._key(rng, f"{tag}-{part}") for part in range(rng.choice((1, 1, 1, 1, 2, 5)))]
        gone = [mine.pop(rng.randrange(len(mine)))] if len(mine) > 30 else []
        size = rng.randrange(20, 300)
        large = self._large_every and serial % self._large_every == 0
        if large:
            keys, size = [self._key(rng, f"{tag}-{part}") for part in range(18)], 1_000_000
        is_prepared = self._prepared and rng.random() < 0.03
        if is_prepared or large:
            with self._fragile:
                done = self._noted(keys, gone, size, is_prepared=is_prepared)
        else:
            done = self._noted(keys, gone, size)
        if done:
            mine += keys

    @staticmethod
    def _key(rng: random.Random, identity: str) -> Key:
        return f"{rng.choice(DATABASES)}.c{rng.randrange(COLLECTIONS)}", identity

    def _noted(
        self, keys: list[Key], gone: list[Key], size: int, *, is_prepared: bool = False
    ) -> bool:
        """Carry one change out and note it; whether it was acknowledged."""
        assert self._client is not None
        failures = self._listener.count
        before = self._now()
        if before is None:
            return False
        try:
            at = self._carry_out(keys, gone, size, is_prepared=is_prepared)
        except PyMongoError:
            self._note(keys, gone, Bounds(before, NEVER))
            self.uncertain += 1
            time.sleep(0.1)
            return False
        exact = self._listener.count == failures
        self._note(keys, gone, Bounds(at if exact else before, at))
        if exact:
            with self._lock:
                self._moments.append(at)
        self.acknowledged += 1
        return True

    def _now(self) -> Moment | None:
        """A cluster time before anything that comes; None while there is no primary."""
        assert self._client is not None
        try:
            reply = self._client.admin.command("ping")
        except PyMongoError:
            time.sleep(0.2)
            return None
        return _moment(reply["operationTime"])

    def _carry_out(
        self, keys: list[Key], gone: list[Key], size: int, *, is_prepared: bool
    ) -> Moment:
        assert self._client is not None
        documents = [_document(key, size) for key in keys]
        with self._client.start_session(causal_consistency=True) as session:
            if len(keys) + len(gone) == 1 and not is_prepared:
                self._collection(keys[0]).insert_one(documents[0], session=session)
            else:
                session.start_transaction(write_concern=WriteConcern("majority"))
                self._write_in(session, keys, documents, gone)
                self._commit(session, is_prepared=is_prepared)
            at = session.operation_time
        assert at is not None
        return _moment(at)

    def _write_in(
        self,
        session: ClientSession,
        keys: list[Key],
        documents: list[dict[str, Any]],
        gone: list[Key],
    ) -> None:
        for key, document in zip(keys, documents, strict=True):
            self._collection(key).insert_one(document, session=session)
        for key in gone:
            self._collection(key).delete_one({"_id": key[1]}, session=session)

    def _commit(self, session: ClientSession, *, is_prepared: bool) -> None:
        assert self._client is not None
        if not is_prepared:
            session.commit_transaction()
            return
        concern = {"writeConcern": {"w": "majority", "wtimeout": 20_000}}
        prepared = self._client.admin.command({"prepareTransaction": 1, **concern}, session=session)
        command = {"commitTransaction": 1, "commitTimestamp": prepared["prepareTimestamp"]}
        self._client.admin.command({**command, **concern}, session=session)
        at = session.operation_time
        # The driver thinks it is open still; the server refuses the abort of a committed one.
        session.abort_transaction()
        session._operation_time = at

    def _collection(self, key: Key) -> Any:
        assert self._client is not None
        database, _, name = key[0].partition(".")
        return self._client[database].get_collection(name, read_concern=ReadConcern("majority"))

    def _note(self, keys: Iterable[Key], gone: Iterable[Key], bounds: Bounds) -> None:
        with self._lock:
            for key in keys:
                self._entries[key] = _Entry(bounds)
            for key in gone:
                self._entries[key].deleted = bounds


def _moment(at: Timestamp) -> Moment:
    return at.time, at.inc


def _document(key: Key, size: int) -> dict[str, Any]:
    return {"_id": key[1], "serial": f"{key[1]}!", "n": len(key[1]), "pad": "x" * size}


def by_second(moments: Iterable[Moment]) -> dict[int, list[Moment]]:
    """Moments by their second."""
    found: defaultdict[int, list[Moment]] = defaultdict(list)
    for at in moments:
        found[at[0]].append(at)
    return dict(found)
