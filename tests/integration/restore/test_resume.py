"""A restore whose worker dies goes on under the next one, and ends the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from agent import faults
from agent.errors import StorageUnavailable
from agent.mongo.node import Node
from agent.operations.restore import keeping, loading, replaying
from agent.storage.memory import MemoryStorage
from agent.wire.backups import Backup
from tests.support.compare import Fingerprint, assert_same, fingerprint
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup
from tests.support.workload import DEFAULT_WEIGHTS, Workload

POINTS = sorted(
    name for name in faults.FAULT_POINTS if name.startswith("restore.") and "publish" not in name
)
WEIGHTS = {**DEFAULT_WEIGHTS, "txn_prepared": 1.0, "txn_large": 0.1}


@dataclass
class World:
    """A backup, and what it has to become."""

    replset: ReplicaSet
    node: Node
    storage: MemoryStorage
    backup: Backup
    expected: Fingerprint

    def run(self) -> RestoreRun:
        return RestoreRun.of(self.node, self.storage, self.backup)

    async def check(self) -> None:
        found = await asyncio.to_thread(fingerprint, self.replset.client())
        assert_same(self.expected, found)
        names = self.replset.client().admin.list_collection_names()
        assert not [name for name in names if name.startswith("tidelogTmp")]


@pytest.fixture
async def world(one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for module in (loading, replaying):
        monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.02)
    monkeypatch.setattr(replaying, "RECORD_EVERY_S", 0.02)
    client = one_node.client()
    node, storage = await open_node(one_node), await MemoryStorage.open()
    workload = Workload(client, 5, weights=WEIGHTS, rate=0)
    expected: Fingerprint = {}

    async def write_on() -> None:
        done = workload.stats().total
        await asyncio.to_thread(eventually, lambda: workload.stats().total > done + 250, 40)
        await asyncio.to_thread(workload.stop)
        expected.update(await asyncio.to_thread(fingerprint, client))

    await asyncio.to_thread(workload.run, 100)
    workload.start()
    backup = await take_backup(node, storage, before_end=write_on)
    yield World(one_node, node, storage, backup, expected)
    await node.aclose()


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


@pytest.mark.timeout(240)
async def test_every_durable_act_may_be_the_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for point in POINTS:
        for hit in (1, 4):
            # With what may stay on the target, and with everything made anew.
            monkeypatch.setattr(keeping, "KEEP_FROM", hit if hit == 1 else 1_000)
            run = world.run()
            faults.arm(f"{point}=transient@{hit}")
            with suppress(StorageUnavailable):  # not every point is passed so often
                await run.work()
            faults.arm("")
            await run.work()
            await world.check()


@pytest.mark.timeout(240)
async def test_workers_may_be_stopped_anywhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_FROM", 1)
    rng = random.Random(3)
    for _ in range(3):
        run = world.run()
        lives = 0
        while True:
            patience = rng.uniform(0.05, 1.5) if lives < 12 else None
            try:
                async with asyncio.timeout(patience):
                    report: dict[str, Any] = await run.work()
                break
            except TimeoutError:
                lives += 1
        await world.check()
        assert report["restored_to"] == world.backup.last_write.to_json()
