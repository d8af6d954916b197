"""A target whose primary goes away in the middle ends the same on the next one."""

from __future__ import annotations

import asyncio
import signal

import pytest

from agent.errors import Transient
from agent.operations.restore import loading, replaying
from agent.storage.memory import MemoryStorage
from tests.support.compare import assert_same, fingerprint
from tests.support.eventually import eventually
from tests.support.mongod import MongodNode, ReplicaSet
from tests.support.restoring import RestoreRun, open_node, take_backup
from tests.support.workload import DEFAULT_WEIGHTS, Workload

DOCUMENTS = 60_000


def fill(replset: ReplicaSet) -> None:
    collection = replset.client()["bulk"]["c"]
    for start in range(0, DOCUMENTS, 5_000):
        rows = [{"_id": n, "pad": f"{n:0400d}"} for n in range(start, start + 5_000)]
        collection.insert_many(rows)


async def at_stage(run: RestoreRun, stage: str, documents: int = 0) -> None:
    """Wait until a worker is there."""

    def there() -> bool:
        last = run.progress[-1] if run.progress else None
        return last is not None and last.stage == stage and last.documents_done >= documents

    await asyncio.to_thread(eventually, there, 60, every_s=0.005)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("stage", "documents", "how"), [("load", 5_000, "kill"), ("replay", 0, "step down")]
)
async def test_the_next_primary_goes_on(
    three_nodes: ReplicaSet,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    documents: int,
    how: str,
) -> None:
    for module in (loading, replaying):
        monkeypatch.setattr(module, "CHECKPOINT_EVERY_S", 0.1)
    monkeypatch.setattr("agent.operations.restore.reporting.REPORT_EVERY_S", 0.01)
    client = three_nodes.client()
    await asyncio.to_thread(fill, three_nodes)
    node, storage = await open_node(three_nodes), await MemoryStorage.open()
    workload = Workload(client, 9, weights=DEFAULT_WEIGHTS, rate=0)

    async def write() -> None:
        await asyncio.to_thread(workload.run, 250)

    backup = await take_backup(node, storage, before_end=write)
    expected = await asyncio.to_thread(fingerprint, client)
    run = RestoreRun.of(node, storage, backup)
    old: MongodNode = three_nodes.primary()
    worker = asyncio.create_task(run.work())
    await at_stage(run, stage, documents)
    if how == "kill":
        three_nodes.kill(old, signal.SIGKILL)
    else:
        await asyncio.to_thread(three_nodes.step_down)
    with pytest.raises(Transient):
        await worker
    await node.aclose()
    if how == "kill":
        await asyncio.to_thread(three_nodes.primary)
        old.start()
    node = await open_node(three_nodes)
    try:
        await run.work(node)
    finally:
        await node.aclose()
    await asyncio.to_thread(three_nodes.wait_healthy)
    assert_same(expected, await asyncio.to_thread(fingerprint, client))
