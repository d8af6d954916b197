"""What encryption costs: the same snapshot with and without it, in turns, on the same data.

    .venv/bin/python -m bench.encryption_throughput [megabytes] [rounds]

Prints the ratio of the medians of wall time and of CPU time; the target is 0.85 or more of the
throughput without. Half of the data does not compress, which is the worst case.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from agent.archive.codec import Compression
from agent.archive.policies import write_policy
from agent.archive.vault import VaultStorage, write_for
from agent.clock import SystemClock
from agent.mongo.node import Node
from agent.operations.backup.snapshot import Snapshot, SnapshotOptions
from agent.storage.filesystem import FilesystemStorage
from agent.wire.namespaces import Selection
from agent.wire.optime import OpTime
from tests.support.mongod import ReplicaSet
from tests.support.vaults import Vaults

BUDGET_BYTES = 256 << 20


def fill(replset: ReplicaSet, megabytes: int) -> None:
    """Half random bytes, half text."""
    rng = random.Random(1)
    documents = replset.client().bench.data
    for start in range(0, megabytes * 64, 512):
        documents.insert_many(
            {
                "_id": number,
                "random": rng.randbytes(8 << 10),
                "text": f"{number} the tide comes in and goes out " * 220,
            }
            for number in range(start, start + 512)
        )


async def take(uri: str, directory: Path, name: str, *, is_encrypted: bool) -> tuple[float, float]:
    """One snapshot; seconds of wall and of CPU time."""
    node = await Node.open(uri)
    inner = await FilesystemStorage.open(directory)
    vaults = Vaults()
    model = await vaults.open()
    storage = VaultStorage(inner, model.keyring.custody)
    if is_encrypted:
        await write_policy(inner, await vaults.policy())
        await write_for(storage, "backup", name)

    async def report(progress: object) -> None:
        """Nobody asks."""

    async def end(read_end: OpTime) -> OpTime:
        return read_end

    options = SnapshotOptions(
        name=name,
        op_id=f"{abs(hash(name)):024x}"[:24],
        epoch=1,
        selection=Selection(),
        compression=Compression(),
        readers=3,
        budget_bytes=BUDGET_BYTES,
    )
    snapshot = Snapshot(node, storage, SystemClock(), options, check=lambda: None, report=report)
    wall, cpu = time.perf_counter(), time.process_time()
    await snapshot.take(end)
    taken = time.perf_counter() - wall, time.process_time() - cpu
    chunks = [item.key async for item in storage.list("chunks/")]
    assert all(key.endswith(".enc") == is_encrypted for key in chunks), chunks
    await storage.aclose()
    await node.aclose()
    return taken


def main() -> None:
    """Measure in turns."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    times: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with ReplicaSet(1) as replset, tempfile.TemporaryDirectory() as directory:
        fill(replset, megabytes)
        for number in range(rounds + 1):
            for is_encrypted in (False, True):
                name = f"run{number}{is_encrypted}"
                place = Path(directory) / name
                place.mkdir()
                taken = asyncio.run(take(replset.uri(), place, name, is_encrypted=is_encrypted))
                if number:  # the first warms the server's cache
                    times[is_encrypted].append(taken)
    for index, what in enumerate(("wall", "CPU")):
        plain = statistics.median(t[index] for t in times[False])
        sealed = statistics.median(t[index] for t in times[True])
        print(f"{what}: {plain:.2f} s in clear, {sealed:.2f} s encrypted, {plain / sealed:.2f}")


if __name__ == "__main__":
    main()
