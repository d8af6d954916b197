"""What could not be faster: the same bytes with nothing else around them.

Each limit uses the fastest way known from Python (raw replies, raw inserts, batches of `applyOps`),
on the same server in the same minutes as what is compared with it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

import zstandard
from bson import encode

from agent.mongo.apply.documents import RawDocument, cut
from agent.mongo.apply.inserting import insert
from agent.mongo.apply.operations import apply_writes
from agent.mongo.cursor import Find, at_snapshot, bounds, raw_batches
from agent.mongo.node import Node
from agent.mongo.ranges import documents_a_range, find_ranges
from agent.wire.optime import OpTime

CHUNK = 32 << 20
READERS = 4
WRITERS = 3
STREAMS = 4
APPLY_BATCH = 500


@dataclass
class Drained:
    """What a collection holds, as the server sent it."""

    namespace: str
    buffers: list[bytes] = field(repr=False)
    """Not shown: asyncio formats what a coroutine answers when it ends, hundreds of MB here."""


def with_node(uri: str, work: Callable[[Node], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function on a connection of its own."""

    async def run() -> Any:
        node = await Node.open(uri)
        try:
            return await work(node)
        finally:
            await node.aclose()

    return asyncio.run(run())


async def drain(node: Node, database: str) -> tuple[float, list[Drained]]:
    """Read every collection of a database in parallel `_id` ranges; wall seconds without the time
    that finding the ranges takes."""
    drained: dict[str, Drained] = {}

    async def keep(namespace: str, documents: bytes) -> None:
        drained.setdefault(namespace, Drained(namespace, [])).buffers.append(documents)

    return await _drain(node, database, keep), list(drained.values())


async def drain_compressed(node: Node, database: str, level: int, *, is_whole: bool) -> float:
    """The same, each batch compressed on whatever core is free while others are read; in ranges, or
    each collection whole, in natural order. A server and an agent that share their cores can do no
    better than the better of these, whatever each could do alone."""
    cores = os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(2 * cores)

    async def squeeze(documents: bytes) -> None:
        try:
            await loop.run_in_executor(pool, _squeezed, documents, level)
        finally:
            room.release()

    with pool:
        async with asyncio.TaskGroup() as group:

            async def take(_: str, documents: bytes) -> None:
                await room.acquire()
                group.create_task(squeeze(documents))

            begun = time.monotonic()
            reading_s = await _drain(node, database, take, is_whole=is_whole)
            planning_s = time.monotonic() - begun - reading_s
        return time.monotonic() - begun - planning_s


async def _drain(
    node: Node,
    database: str,
    take: Callable[[str, bytes], Awaitable[None]],
    *,
    is_whole: bool = False,
) -> float:
    at = (await node.hello()).majority
    jobs: list[tuple[str, Find]] = []
    listed = await node.command(database, {"listCollections": 1})
    for found in listed["cursor"]["firstBatch"]:
        namespace = f"{database}.{found['name']}"
        uuid = bytes(found["info"]["uuid"]).hex()
        if is_whole:
            jobs.append((namespace, _find(namespace, uuid, at, None, None)))
            continue
        stats = await node.command(database, {"collStats": found["name"]})
        skip = documents_a_range(stats["size"], stats["count"], CHUNK)
        ranges = find_ranges(node, ns=namespace, uuid=uuid, read_at=at, skip=skip)
        async for low, high in ranges:
            jobs.append((namespace, _find(namespace, uuid, at, low, high)))
    begun = time.monotonic()
    slots = asyncio.Semaphore(READERS)

    async def read(namespace: str, find: Find) -> None:
        async with slots, raw_batches(node, find) as batches:
            async for batch in batches:
                await take(namespace, batch.documents)

    async with asyncio.TaskGroup() as group:
        for namespace, find in jobs:
            group.create_task(read(namespace, find))
    return time.monotonic() - begun


def _find(ns: str, uuid: str, at: OpTime, low: bytes | None, high: bytes | None) -> Find:
    options = bounds(low, high, is_clustered=False)
    return Find(ns.partition(".")[0], uuid, ns, at_snapshot(at), options)


def compress(drained: list[Drained], level: int) -> float:
    """Wall seconds to compress all of it on every core."""
    buffers = [buffer for one in drained for buffer in one.buffers if buffer]

    begun = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sum(pool.map(_squeezed, buffers, repeat(level)))
    return time.monotonic() - begun


def _squeezed(buffer: bytes, level: int) -> int:
    return len(zstandard.ZstdCompressor(level=level).compress(buffer))


async def fill(node: Node, drained: list[Drained], database: str) -> float:
    """Insert all of it into another database by several writers; wall seconds."""
    batches: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    for one in drained:
        name = one.namespace.partition(".")[2]
        await node.command(database, {"create": name})
        for buffer in one.buffers:
            batches.put_nowait((f"{database}.{name}", buffer))

    async def write() -> None:
        while not batches.empty():
            namespace, buffer = batches.get_nowait()
            for documents in cut(buffer):
                await insert(node, namespace, documents)

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write())
    return time.monotonic() - begun


async def build_indexes(node: Node, source: str, database: str) -> float:
    """The secondary indexes of `source` on the same collections of `database`; wall seconds."""
    wanted: dict[str, list[Any]] = {}
    listed = await node.command(source, {"listCollections": 1})
    for found in listed["cursor"]["firstBatch"]:
        specs = await node.command(source, {"listIndexes": found["name"]})
        kept = [spec for spec in specs["cursor"]["firstBatch"] if spec["name"] != "_id_"]
        if kept:
            wanted[found["name"]] = kept
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for name, specs in wanted.items():
            command = {"createIndexes": name, "indexes": specs}
            group.create_task(node.command(database, command, timeout_s=3600))
    return time.monotonic() - begun


def bare_operations(client: Any, after: Any, source: str, target: str) -> list[list[RawDocument]]:
    """The operations of a history as `applyOps` takes them, in streams that may run side by side,
    for the collections of another database."""
    streams: list[list[RawDocument]] = [[] for _ in range(STREAMS)]
    raw = client.local["oplog.rs"].find(
        {"ts": {"$gt": after}, "ns": {"$regex": f"^{source}\\."}, "op": {"$in": ["i", "u", "d"]}}
    )
    for entry in raw:
        kept = {name: entry[name] for name in ("op", "o", "o2", "b") if name in entry}
        name = entry["ns"].partition(".")[2]
        kept["ns"] = f"{target}.{name}"
        streams[int(name[1:]) % STREAMS].append(RawDocument(encode(kept)))
    return streams


async def apply_bare(node: Node, streams: list[list[RawDocument]]) -> float:
    """Wall seconds to apply them in batches."""

    async def run(operations: list[RawDocument]) -> None:
        for first in range(0, len(operations), APPLY_BATCH):
            batch = operations[first : first + APPLY_BATCH]
            await apply_writes(node, batch, is_lenient=True)

    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for operations in streams:
            group.create_task(run(operations))
    return time.monotonic() - begun


def copy(source: Path, target: Path) -> float:
    """Wall seconds to copy the stored objects to the same disk and see them on it."""
    begun = time.monotonic()
    shutil.copytree(source, target)
    for path in target.rglob("*"):
        if path.is_file():
            with path.open("rb") as opened:
                os.fsync(opened.fileno())
    taken = time.monotonic() - begun
    shutil.rmtree(target)
    return taken


async def scan(node: Node, database: str) -> float:
    """Read every collection in natural order, one cursor each, throwing it away; wall seconds."""
    listed = await node.command(database, {"listCollections": 1})
    begun = time.monotonic()
    for found in listed["cursor"]["firstBatch"]:
        uuid = bytes(found["info"]["uuid"]).hex()
        name = f"{database}.{found['name']}"
        async with raw_batches(node, Find(database, uuid, name, {"level": "majority"})) as batches:
            async for _ in batches:
                pass
    return time.monotonic() - begun
