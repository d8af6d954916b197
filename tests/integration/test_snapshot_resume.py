"""A snapshot outlives its workers: another node goes on, and each document is stored once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from agent import faults
from agent.errors import StorageUnavailable, TidelogError, root_cause
from agent.operations.backup import bundling, snapshot
from agent.operations.backup.resuming import reread_bytes
from agent.operations.backup.snapshot import SnapshotOutcome
from agent.storage.base import ObjectInfo
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.wire.namespaces import Selection
from agent.wire.operations import Progress
from agent.wire.optime import OpTime
from tests.support.documents import identity
from tests.support.faulty_storage import FaultyStorage
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import (
    contents,
    make_snapshot,
    open_node,
    oplog_of,
    small_units,
    take,
)
from tests.support.workload.runner import mark

Client = MongoClient[dict[str, Any]]
DATA = Selection(users_and_roles=False)
LARGE, TINY = 3000, 40
READERS, PLANNERS = 3, 2
UNIT_BYTES = 32 << 10


class _Dying(FaultyStorage):
    """At the n-th put its user dies: by cancellation, or by an error."""

    def __init__(self, objects: MemoryObjects, at_put: int, *, by_error: bool) -> None:
        super().__init__(MemoryStorage(objects, "memory"))
        self.reached = asyncio.Event()
        self._left = at_put
        self._by_error = by_error

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Counts."""
        self._left -= 1
        if self._left < 0:
            self.reached.set()
            if self._by_error:
                raise StorageUnavailable("no route to host")
            await asyncio.sleep(60)
        return await super().put(key, source, size_hint=size_hint)


def _seed(client: Client) -> None:
    db = client["db"]
    mixed: list[Any] = [n if n % 3 else f"text {n}" for n in range(LARGE)]
    db["large"].insert_many([{"_id": one, "pad": "x" * 150} for one in mixed])
    db.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
    db["clustered"].insert_many([{"_id": n, "pad": "x" * 150} for n in range(LARGE)])
    db.create_collection("ring", capped=True, size=4 << 20)
    db["ring"].insert_many([{"_id": n, "pad": "x" * 100} for n in range(300)])
    for n in range(TINY):
        db[f"tiny{n}"].insert_one({"_id": n})
    mark(client, of_all=3)


async def _assert_whole(objects: MemoryObjects, outcome: SnapshotOutcome) -> None:
    storage = MemoryStorage(objects, "memory")
    held = await contents(storage, outcome)
    assert len(held) == 3 + TINY
    for ns, raw in held.items():
        counted = Counter(map(identity, raw))
        assert set(counted.values()) == {1}, f"{ns}: a document is stored twice"
    sizes = {ns: len(raw) for ns, raw in held.items()}
    assert sizes["db.large"] == sizes["db.clustered"] == LARGE
    assert sizes["db.ring"] == 300
    assert all(sizes[f"db.tiny{n}"] == 1 for n in range(TINY))
    await oplog_of(storage, outcome)


@pytest.mark.parametrize("seed", range(3))
async def test_whoever_dies_wherever_another_node_goes_on_and_reads_what_is_missing(
    three_nodes: ReplicaSet, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    client = three_nodes.client()
    _seed(client)
    small_units(monkeypatch, UNIT_BYTES)
    monkeypatch.setattr(bundling, "BUNDLE_SEGMENTS", 7)
    monkeypatch.setattr(snapshot, "REPORT_EVERY_S", 0.002)
    rng = random.Random(seed)
    objects = MemoryObjects()
    members = three_nodes.data_nodes
    deaths = 4
    told, rereads = [Progress()], list[int]()

    def resumed(kept: Progress) -> None:
        rereads.append(reread_bytes(told[-1], kept))
        told.append(kept)

    for epoch in range(1, deaths + 1):
        storage = _Dying(objects, rng.randrange(1, 16), by_error=rng.random() < 0.5)
        async with open_node(three_nodes, members[epoch % 3]) as node:
            taking = asyncio.create_task(
                take(
                    node,
                    storage,
                    epoch=epoch,
                    selection=DATA,
                    readers=READERS,
                    on_progress=told.append,
                    on_resumed=resumed,
                )
            )
            await storage.reached.wait()
            taking.cancel()
            with pytest.raises((asyncio.CancelledError, ExceptionGroup, TidelogError)) as caught:
                await taking
            assert isinstance(root_cause(caught.value), asyncio.CancelledError | StorageUnavailable)
        client["noise"]["c"].insert_one({"epoch": epoch})
    storage = _Dying(objects, 10_000, by_error=True)
    async with open_node(three_nodes, members[(deaths + 1) % 3]) as node:
        outcome = await take(node, storage, epoch=deaths + 1, selection=DATA, on_resumed=resumed)
    await _assert_whole(objects, outcome)
    named = {item.key for item in outcome.objects}
    orphans = [key for key in objects.keys if key.startswith("chunks/") and key not in named]
    # In flight, and finished while the journal's last entry was being written.
    assert len(orphans) <= deaths * (READERS + PLANNERS + READERS)
    assert len(rereads) == deaths
    largest = max(item.plain_bytes for item in outcome.objects)
    assert max(rereads) <= (READERS + PLANNERS + READERS) * largest, rereads
    epochs = {key.rpartition("/")[2].split("-")[1] for key in named}
    assert len(epochs) > 1, "nothing of the earlier workers was used"


@pytest.mark.parametrize(
    ("point", "whole_bytes"),
    [
        ("snapshot.catalogued", 0),
        ("snapshot.chunk_read@3", 0),
        ("snapshot.chunk_stored@3", 0),
        ("snapshot.journal_written", 0),
        ("snapshot.journal_written@2", 0),
        ("oplog.slice_stored", 0),
        ("snapshot.chunk_read@3", 1 << 30),
        ("snapshot.chunk_stored@3", 1 << 30),
    ],
)
async def test_a_failure_at_any_fault_point_is_gone_on_from(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch, point: str, whole_bytes: int
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n, "pad": "x" * 150} for n in range(1500)])
    small_units(monkeypatch, 32 << 10, whole_bytes=whole_bytes)
    objects = MemoryObjects()
    name, _, hit = point.partition("@")

    async def later(read_end: OpTime) -> OpTime:
        await asyncio.to_thread(client["noise"]["c"].insert_one, {})
        return OpTime.of(await asyncio.to_thread(mark, client))

    async with open_node(one_node) as node:
        storage = MemoryStorage(objects, "memory")
        faults.arm(f"{name}=transient@{hit or 1}")
        try:
            with pytest.raises((ExceptionGroup, TidelogError)) as caught:
                await make_snapshot(node, storage, selection=DATA).take(later)
        finally:
            faults.arm("")
        assert "fault injected" in str(root_cause(caught.value))
        outcome = await make_snapshot(node, storage, epoch=2, selection=DATA).take(later)
    held = (await contents(storage, outcome))["db.c"]
    assert sorted(RawBSONDocument(raw)["_id"] for raw in held) == list(range(1500))
    await oplog_of(storage, outcome)


async def test_a_worker_that_woke_up_too_late_changes_nothing(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = one_node.client()
    client["db"]["c"].insert_many([{"_id": n, "pad": "x" * 150} for n in range(1500)])
    small_units(monkeypatch, 32 << 10)
    objects = MemoryObjects()
    paused = _Paused(objects, 4)
    async with open_node(one_node) as node:
        zombie = asyncio.create_task(take(node, paused, epoch=1, selection=DATA))
        await paused.reached.wait()
        outcome = await take(node, MemoryStorage(objects, "memory"), epoch=2, selection=DATA)
        paused.gate.set()
        late = await zombie
    storage = MemoryStorage(objects, "memory")
    for one in (outcome, late):
        held = (await contents(storage, one))["db.c"]
        assert sorted(RawBSONDocument(raw)["_id"] for raw in held) == list(range(1500))
    assert {ref.key for ref in outcome.slices}.isdisjoint({ref.key for ref in late.slices})


class _Paused(FaultyStorage):
    """After so many puts everything stands still, until the gate opens."""

    def __init__(self, objects: MemoryObjects, after: int) -> None:
        super().__init__(MemoryStorage(objects, "memory"))
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self._left = after

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Counts."""
        self._left -= 1
        if self._left < 0:
            self.reached.set()
            await self.gate.wait()
        return await super().put(key, source, size_hint=size_hint)
