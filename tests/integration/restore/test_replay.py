"""Whatever was written while the backup ran is in the restore, and nothing else."""

from __future__ import annotations

import asyncio

from agent.storage.memory import MemoryStorage
from tests.support.compare import assert_same, fingerprint
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup
from tests.support.workload import DEFAULT_WEIGHTS, Workload

WEIGHTS = {**DEFAULT_WEIGHTS, "txn_prepared": 1.0, "txn_prepared_aborted": 1.0}


async def test_restore_equals_the_source_at_last_write(one_node: ReplicaSet) -> None:
    client = one_node.client()
    node, storage = await open_node(one_node), await MemoryStorage.open()
    workload = Workload(client, 1, weights=WEIGHTS, rate=0)
    await asyncio.to_thread(workload.run, 150)
    before = {}

    async def quiesce() -> None:
        done = workload.stats().total
        await asyncio.to_thread(eventually, lambda: workload.stats().total > done + 250, 30)
        await asyncio.to_thread(workload.stop)
        before.update(await asyncio.to_thread(fingerprint, client))

    try:
        workload.start()
        backup = await take_backup(node, storage, before_end=quiesce)
        await asyncio.to_thread(workload.run, 50)
        report = await RestoreRun.of(node, storage, backup).work()
    finally:
        await node.aclose()
    assert_same(before, await asyncio.to_thread(fingerprint, client))
    assert report["operations_applied"] > 0
