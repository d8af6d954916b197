"""A snapshot in a process of its own, which prints how much memory it took beyond its start.

    python -m tests.support.snapshot_memory URI BUDGET_MIB READERS

What is stored is thrown away, but the repository's small documents.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import AsyncIterator

from agent.mongo.node import Node
from agent.storage.base import ObjectInfo
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.wire.namespaces import Selection
from tests.support.snapshots import take


class _Discarding(MemoryStorage):
    """Keeps no chunks and no slices."""

    async def put(
        self, key: str, source: AsyncIterator[bytes], *, size_hint: int | None = None
    ) -> ObjectInfo:
        """Counts the bytes."""
        if not key.startswith(("chunks/", "slices/")):
            return await super().put(key, source, size_hint=size_hint)
        size = 0
        async for block in source:
            size += len(block)
            # As slow as a storage: readers must wait for it and not read on without end.
            await asyncio.sleep(len(block) / 400e6)
        return ObjectInfo(key, size)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(uri: str, budget_mib: int, readers: int) -> dict[str, float]:
    """Peak memory above what the process had with its connection open, in MiB."""
    node = await Node.open(uri)
    try:
        before = _peak_mib()
        outcome = await take(
            node,
            _Discarding(MemoryObjects(), "discarding"),
            selection=Selection(users_and_roles=False),
            budget_bytes=budget_mib << 20,
            readers=readers,
        )
        return {
            "grown_mib": _peak_mib() - before,
            "peak_mib": _peak_mib(),
            "documents": sum(item.documents for item in outcome.objects),
            "objects": len(outcome.objects),
            "largest_mib": max(item.size_bytes for item in outcome.objects) / (1 << 20),
        }
    finally:
        await node.aclose()


if __name__ == "__main__":
    found = asyncio.run(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
    sys.stdout.write(json.dumps(found))
