"""Memory is bounded by the budget, whatever the size and kind of the data."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from agent.operations.backup.planning import PLANNER_BUDGET_BYTES
from agent.operations.backup.reading import STREAM_BUDGET_BYTES
from agent.storage.memory import MemoryStorage
from tests.support.mongod import ReplicaSet
from tests.support.snapshots import open_node, small_units, take

DOCUMENTS, PAD = 3_000, 100_000
SIZE_MIB = DOCUMENTS * PAD / (1 << 20)
PYTHON_MIB = 48
"""Buffers of the driver, the allocator's rest, and the slack of two batches."""


@pytest.fixture
def filled(one_node: ReplicaSet) -> Iterator[ReplicaSet]:
    """300 MB that do not compress, in an ordinary collection or a capped one."""
    yield one_node
    one_node.client().drop_database("big")


def _fill(replset: ReplicaSet, **options: Any) -> None:
    database = replset.client()["big"]
    database.create_collection("c", **options)
    rng = random.Random(5)
    for start in range(0, DOCUMENTS, 100):
        made = [{"_id": n, "pad": rng.randbytes(PAD)} for n in range(start, start + 100)]
        database.command({"insert": "c", "documents": made, "writeConcern": {"w": 1}})


def _measured(replset: ReplicaSet, budget_mib: int, readers: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.support.snapshot_memory"]
    arguments = [replset.uri_of(replset.primary()), str(budget_mib), str(readers)]
    done = subprocess.run([*command, *arguments], capture_output=True, check=True, timeout=120)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "options", [{}, {"capped": True, "size": 1 << 30}], ids=["plain", "capped"]
)
def test_300_mb_that_do_not_compress_are_read_within_128_mib(
    filled: ReplicaSet, options: dict[str, Any]
) -> None:
    _fill(filled, **options)
    found = _measured(filled, 128, 6)
    assert found["documents"] == DOCUMENTS
    assert found["objects"] >= 5
    assert found["largest_mib"] < 64
    assert found["grown_mib"] < 128 + PYTHON_MIB < SIZE_MIB * 0.7, found


@pytest.mark.timeout(180)
def test_200_mb_read_whole_take_no_more_than_the_budget_of_a_stream(filled: ReplicaSet) -> None:
    _fill(filled)
    filled.client()["big"]["c"].delete_many({"_id": {"$gte": 2000}})
    found = _measured(filled, 2 * PLANNER_BUDGET_BYTES + STREAM_BUDGET_BYTES >> 20, 3)
    assert found["documents"] == 2000
    assert found["objects"] >= 5
    assert found["grown_mib"] < (STREAM_BUDGET_BYTES >> 20) + PYTHON_MIB, found


async def test_a_budget_below_what_planners_and_readers_hold_does_not_stand_still(
    one_node: ReplicaSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        made = [{"_id": n, "pad": "x" * 150} for n in range(2000)]
        one_node.client()["db"][name].insert_many(made)
    small_units(monkeypatch, 16 << 10)
    async with open_node(one_node) as node, asyncio.timeout(30):
        outcome = await take(node, await MemoryStorage.open(), readers=1, budget_bytes=1 << 20)
    assert sum(item.documents for item in outcome.objects) == 6000
