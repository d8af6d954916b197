"""What a replica set held at any past moment, by mongod's own recovery: the truth for restores.

A copy of one node's files is taken at the start. For a moment T, the oplog up to T is put into a
clone of that copy, and mongod replays it as it does after a crash: DDL, transactions and index
builds included. Nothing of the product takes part, and the source is never stopped. The moment must
lie after the oracle was opened, the oplog must not have rolled over, and no document written since
may be within a few hundred bytes of 16 MiB (an oplog entry is larger than its document).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bson.timestamp import Timestamp
from pymongo import MongoClient
from pymongo.errors import BulkWriteError

from tests.support.compare import Fingerprint, fingerprint
from tests.support.documents import RAW
from tests.support.mongod import Member, MongodNode, ReplicaSet, find_mongod
from tests.support.reaper import REAPER
from tests.support.workload.runner import mark

_BATCH: Final = 2_000
_BATCH_BYTES: Final = 32 << 20
_STANDALONE: Final = (
    *("--wiredTigerCacheSizeGB", "0.25"),
    *("--setParameter", "enableTestCommands=1"),
    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    *("--setParameter", "ttlMonitorEnabled=false"),
)
_RECOVER: Final = ("--setParameter", "recoverFromOplogAsStandalone=true")


class Oracle:
    """Opened before the writes begin; asked afterwards, as often as wanted (or `once`, faster)."""

    def __init__(self, replset: ReplicaSet, *, once: bool = False) -> None:
        self._replset = replset
        self._once = once
        self._directory: Path | None = None
        self._asked = 0

    def __enter__(self) -> Self:
        self._directory = REAPER.make_directory("tidelog-oracle-")
        # What a secondary has not yet is not in the copy, and has to be fed to it.
        mark(self._replset.client(), of_all=len(self._replset.data_nodes))
        nodes = self._replset.secondaries() or self._replset.data_nodes
        self._copy(nodes[0], self._directory / "base")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._directory is not None:
            REAPER.remove_directory(self._directory)
            self._directory = None

    def fingerprint(self, at: Timestamp, **options: Any) -> Fingerprint:
        """The fingerprint of the set as it was at this cluster time, inclusive."""
        with self.state_at(at) as client:
            return fingerprint(client, **options)

    @contextmanager
    def state_at(self, at: Timestamp) -> Iterator[MongoClient[dict[str, Any]]]:
        """A read-only server that holds what the set held at this cluster time."""
        assert self._directory is not None, "the oracle is not open"
        self._asked += 1
        home = self._directory / f"clone{self._asked}"
        if self._once:
            home.mkdir()
            (self._directory / "base").rename(home / "data")
        else:
            _copy_files(self._directory / "base", home / "data")
        try:
            with _standalone(home, ()) as client:
                self._feed(client, at)
                client.admin.command("fsync")
            with _standalone(home, _RECOVER) as client:
                yield client
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _copy(self, node: MongodNode, target: Path) -> None:
        client = self._replset.connect(self._replset.uri_of(node))
        client.admin.command({"fsync": 1, "lock": True})
        try:
            _copy_files(node.directory / "data", target)
        finally:
            client.admin.command("fsyncUnlock")

    def _feed(self, clone: MongoClient[dict[str, Any]], at: Timestamp) -> None:
        # A primary notes up to where its oplog has no holes; recovery would cut off what we add.
        clone.local["replset.oplogTruncateAfterPoint"].update_many(
            {}, {"$set": {"oplogTruncateAfterPoint": Timestamp(0, 0)}}
        )
        newest = clone.local["oplog.rs"].find_one(sort=[("$natural", -1)])
        assert newest is not None
        assert newest["ts"] <= at, f"the oracle was opened at {newest['ts']}, after {at}"
        source = self._replset.client().local["oplog.rs"].with_options(codec_options=RAW)
        first = source.find_one(sort=[("$natural", 1)])
        assert first is not None
        assert first["ts"] <= newest["ts"], "the oplog has rolled over since the oracle was opened"
        batch: list[Any] = []
        size = 0
        for entry in source.find({"ts": {"$gt": newest["ts"], "$lte": at}}):
            if batch and (len(batch) == _BATCH or size + len(entry.raw) > _BATCH_BYTES):
                _insert(clone, batch)
                batch, size = [], 0
            batch.append(entry)
            size += len(entry.raw)
        if batch:
            _insert(clone, batch)


def _insert(clone: MongoClient[dict[str, Any]], batch: list[Any]) -> None:
    try:
        clone.local["oplog.rs"].insert_many(batch)
    except BulkWriteError as error:
        # Its own text holds every document. An entry is larger than the document it is about,
        # and the largest document is the most that may be inserted.
        message = error.details["writeErrors"][0]["errmsg"]
        raise AssertionError(f"an oplog entry cannot be given to the clone: {message}") from None


@contextmanager
def _standalone(home: Path, arguments: tuple[str, ...]) -> Iterator[MongoClient[dict[str, Any]]]:
    node = MongodNode(find_mongod(), home, [*_STANDALONE, *arguments], Member())
    try:
        node.start()
        uri = f"mongodb://{node.host}/?directConnection=true"
        with MongoClient[dict[str, Any]](uri) as client:
            yield client
    finally:
        node.kill()


def _copy_files(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # `cp` keeps holes and shares blocks where the file system can; a journal is 300 MB of nothing.
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)
    (target / "mongod.lock").unlink(missing_ok=True)
