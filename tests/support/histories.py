"""A whole history in this process, in seconds: written, backed up, archived, restored to moments.

There are no agents: snapshot, archiver and restore are the product's own, on one server.
At some moments the history holds still, and what the server holds then is noted; what it held in
the middle, mongod's own recovery tells (`tests.support.oracle`). Some restores lose their worker on
the way, and another ends them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from bson.timestamp import Timestamp

from agent.archive.codec import Compression
from agent.archive.manifest import SliceRef
from agent.mongo.node import Node
from agent.mongo.oplog import Position
from agent.operations.archiver import OplogArchiver, Slice
from agent.operations.restore.plan import read_manifest
from agent.storage.memory import MemoryStorage
from agent.wire.backups import Backup
from agent.wire.optime import OpTime
from tests.support.cleaning import clean
from tests.support.compare import Fingerprint, diff, fingerprint
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.oracle import Oracle
from tests.support.restoring import RestoreRun, open_node, take_backup
from tests.support.workload import DEFAULT_WEIGHTS, Workload
from tests.support.workload.runner import mark

WEIGHTS: Final[Mapping[str, float]] = {
    **DEFAULT_WEIGHTS,
    "txn_prepared": 1.5,
    "txn_prepared_aborted": 0.7,
}
LARGE_WEIGHTS: Final[Mapping[str, float]] = {
    **WEIGHTS,
    "txn_large": 0.2,
    "txn_large_prepared": 0.2,
}
"""For servers with an oplog of a gigabyte."""
ACTIONS: Final = 80
"""Before the backup, during it, and between two moments: so many, or up to twice as many."""
MOMENTS: Final = 3
"""At which it holds still after the backup."""
_CUT_S: Final = 2.0
"""A worker that is lost is lost within so long."""


@dataclass
class Told:
    """What was done and found so far."""

    seeds: int = 0
    actions: int = 0
    large: int = 0
    """Transactions of more than 16 MiB that were tried."""
    prepared: int = 0
    """Prepared transactions that were committed."""
    restores: int = 0
    by_oracle: int = 0
    """Restores into the middle, compared with mongod's own recovery."""
    taken_over: int = 0
    """Restores that another worker ended."""
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.actions} actions (transactions: {self.prepared} prepared "
            f"and committed, {self.large} of more than 16 MiB), {self.restores} restores compared "
            f"({self.by_oracle} with mongod's own recovery, {self.taken_over} ended by a second "
            f"worker), {len(self.failures)} failures"
        )


async def prove_history(
    replset: ReplicaSet,
    seed: int,
    told: Told,
    *,
    weights: Mapping[str, float] = WEIGHTS,
    with_oracle: bool = False,
) -> None:
    """Write the history of this seed on a clean server, and restore it to the end of its backup, to
    `MOMENTS` after it, and, `with_oracle`, to one in the middle. What differs goes to `told`."""
    await asyncio.to_thread(clean, replset.client())
    node = await open_node(replset)
    try:
        workload = Workload(replset.client(), seed, weights=weights, rate=0)
        history = _History(replset, node, workload, told, await MemoryStorage.open())
        await history.prove(with_oracle)
    finally:
        await node.aclose()
    told.seeds += 1


class _History:
    def __init__(
        self,
        replset: ReplicaSet,
        node: Node,
        workload: Workload,
        told: Told,
        storage: MemoryStorage,
    ) -> None:
        self._client = replset.client()
        self._replset = replset
        self._node = node
        self._seed = workload.seed
        self._told = told
        self._storage = storage
        self._rng = random.Random(f"history/{workload.seed}")
        self._workload = workload
        self._held: list[tuple[OpTime, Fingerprint]] = []

    async def prove(self, with_oracle: bool) -> None:
        await self._write()
        backup = await self._backup()
        with ExitStack() as stack:
            oracle = None
            if with_oracle:
                oracle = await asyncio.to_thread(
                    stack.enter_context, Oracle(self._replset, once=True)
                )
            await self._go_on(backup)
            if oracle is not None:
                await self._ask(oracle, backup)
        self._rng.shuffle(self._held)
        for number, (at, expected) in enumerate(self._held):
            await self._restore(backup, number, at, expected)
        stats = self._workload.stats()
        self._told.actions += stats.total
        self._told.prepared += stats.succeeded["prepare_commit"]
        self._told.large += stats.actions["txn_large"] + stats.actions["txn_large_prepared"]

    async def _write(self) -> None:
        count = self._rng.randrange(ACTIONS, 2 * ACTIONS)
        await asyncio.to_thread(self._workload.run, count)

    async def _backup(self) -> Backup:
        """Written to while it is taken."""
        images: list[Fingerprint] = []
        count = self._workload.stats().total + self._rng.randrange(ACTIONS)

        async def hold_still() -> None:
            await asyncio.to_thread(
                eventually, lambda: self._workload.stats().total > count, 60.0, every_s=0.01
            )
            await asyncio.to_thread(self._workload.stop)
            images.append(await self._image())

        self._workload.start()
        try:
            backup = await take_backup(self._node, self._storage, before_end=hold_still)
        finally:
            await asyncio.to_thread(self._workload.stop, quietly=True)
        self._held.append((backup.last_write, images[0]))
        return backup

    async def _go_on(self, backup: Backup) -> None:
        """Archived in slices of any size, each archiver going on from the last one's."""
        last = (await read_manifest(self._storage, backup.replsets[0])).slices[-1]
        for turn in range(MOMENTS):
            archiver, kept = self._archiver(last, turn)
            await self._write()
            if self._rng.random() < 0.5:
                await archiver.read()
                await archiver.close()
                await self._write()
            at = OpTime.of(await asyncio.to_thread(mark, self._client))
            self._held.append((at, await self._image()))
            await archiver.read()
            await archiver.close()
            last = kept[-1]

    def _archiver(self, last: SliceRef, turn: int) -> tuple[OplogArchiver, list[SliceRef]]:
        kept: list[SliceRef] = []

        async def keep(archived: Slice) -> None:
            kept.append(archived.ref)

        archiver = OplogArchiver(
            self._node,
            self._storage,
            compression=Compression(),
            epoch=turn + 2,
            position=Position(last.end, last.end_term),
            previous_sha256=last.sha256,
            on_slice=keep,
        )
        return archiver, kept

    async def _ask(self, oracle: Oracle, backup: Backup) -> None:
        """A moment between any two entries, but not while a transaction is prepared: the server
        that recovers would not let its documents be read."""
        oplog = self._client.local["oplog.rs"]
        span = {"$gt": backup.last_write.timestamp(), "$lt": self._held[-1][0].timestamp()}
        free: list[Timestamp] = []
        prepared: set[tuple[bytes, int]] = set()
        fields = {"ts": 1, "lsid": 1, "txnNumber": 1, "o.prepare": 1, "o.partialTxn": 1}
        for entry in oplog.find({"ts": span}, {**fields, "o.commitTransaction": 1, "op": 1}):
            if "txnNumber" in entry:
                transaction = (bytes(entry["lsid"]["id"]), entry["txnNumber"])
                prepared.discard(transaction)
                if entry["o"].get("prepare"):
                    prepared.add(transaction)
            if not prepared:
                free.append(entry["ts"])
        at = self._rng.choice(free)
        truth = await asyncio.to_thread(oracle.fingerprint, at, documents_mb=0)
        self._held.append((OpTime.of(at), truth))
        self._told.by_oracle += 1

    async def _restore(
        self, backup: Backup, number: int, at: OpTime, expected: Fingerprint
    ) -> None:
        run = RestoreRun.of(self._node, self._storage, backup, time=at)
        run.op_id = f"{self._seed % 2**32:08x}{number:016x}"
        run.name = f"restore-{number}"
        if self._rng.random() < 0.3:
            try:
                async with asyncio.timeout(self._rng.uniform(0.0, _CUT_S)):
                    await run.work()
            except TimeoutError:
                self._told.taken_over += 1
        report = await run.work()
        found = diff(expected, await self._image())
        # Nobody else is here: what the restore itself takes for a difference is none.
        found += [text for text in report["warnings"] if text.startswith("the target differs")]
        # What the server makes for a moment is restored as it is, but not as what vanishes by
        # itself at the next election.
        found = [line for line in found if not line.endswith("option temp only in the first: True")]
        self._told.restores += 1
        where = f"seed {self._seed} restored to {at}"
        self._told.failures += [f"{where}: {line}" for line in found[:10]]

    async def _image(self) -> Fingerprint:
        return await asyncio.to_thread(fingerprint, self._client, documents_mb=0)
