"""Loading small collections, many in one command.

A command for each of thousands of small collections costs the agent more than their documents do.
So what is to be written to several of them goes into one `applyOps`, which is all or nothing. Of
collections that stayed on the target (see `keeping`) what they hold is read first: documents that
are as they should be are left alone, others are deleted, and what is missing is put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bson import Binary

from agent.mongo.apply.documents import RawDocument
from agent.mongo.cursor import Find, raw_batches
from agent.mongo.heads import read_whole_heads
from agent.mongo.raw import documents, elements
from agent.operations.restore.job import Job
from agent.replay.catalogue import Collection
from agent.replay.entries import DELETE, INSERT
from agent.tasks import TaskGroup
from agent.wire.namespaces import split

TOGETHER: Final = 64
"""Collections whose writes go into one command."""
MOST_BYTES: Final = 1 << 20
MOST_OPERATIONS: Final = 1_000
"""Of one command: the server holds its global lock meanwhile, for some 20 ms."""
_READERS: Final = 4
HELD_BYTES: Final = 256 << 10
"""What is kept in memory of what one of them holds: a small collection may have grown since."""
_HELD_DOCUMENTS: Final = 300
_READ_TOGETHER_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Small:
    """A collection, and all that it should hold."""

    collection: Collection
    data: bytes


async def mend(job: Job, group: Sequence[Small], *, may_hold: bool) -> list[Small]:
    """Make these collections hold what they should, and, unless they are known to be empty, nothing
    else; answers what was put into each. May be repeated.

    Raises `RestoreFailed`, `NodeUnavailable`.
    """
    held = await _read(job, group) if may_hold else [b""] * len(group)
    operations: list[RawDocument] = []
    written: list[Small] = []
    for small, found in zip(group, held, strict=True):
        extra, missing = difference(small.data, found)
        # Deletes come first: what the server takes for one `_id` (1 and 1.0) may differ for us.
        write = small.collection.operation
        operations += _deleting(small.collection, extra)
        operations += [RawDocument(write(INSERT, _field(each))) for each in missing]
        written.append(Small(small.collection, b"".join(missing)))
    await _apply(job, operations)
    return written


async def _apply(job: Job, operations: list[RawDocument]) -> None:
    for batch in _batches(operations):
        await job.apply(batch, is_lenient=True)


def _deleting(collection: Collection, gone: list[bytes]) -> list[RawDocument]:
    return [RawDocument(collection.operation(DELETE, _field(identity(each)))) for each in gone]


def difference(wanted: bytes, held: bytes) -> tuple[list[bytes], list[bytes]]:
    """The documents that are there and should not be, and those that should and are not."""
    there = [held[start:end] for start, end in documents(held)]
    asked = [wanted[start:end] for start, end in documents(wanted)]
    of_there, of_asked = set(there), set(asked)
    return (
        [each for each in there if each not in of_asked],
        [each for each in asked if each not in of_there],
    )


def _field(document: bytes) -> bytes:
    return b"\x03o\0" + document


def identity(document: bytes) -> bytes:
    """`{_id: …}` of a document, the value as it is."""
    found = next(e for e in elements(document) if e.name == b"_id")
    content = bytes([found.kind]) + b"_id\0" + document[found.start : found.end] + b"\0"
    return (len(content) + 4).to_bytes(4, "little") + content


def _batches(operations: list[RawDocument]) -> list[list[RawDocument]]:
    batches: list[list[RawDocument]] = []
    size = MOST_BYTES
    for operation in operations:
        if size + len(operation.raw) > MOST_BYTES or len(batches[-1]) >= MOST_OPERATIONS:
            batches.append([])
            size = 0
        batches[-1].append(operation)
        size += len(operation.raw)
    return batches


async def _read(job: Job, group: Sequence[Small]) -> list[bytes]:
    """What each holds now: of most it is little, and comes in one trip."""
    finds = [_find(small.collection) for small in group]
    whole = await read_whole_heads(job.node, finds, most_bytes=_READ_TOGETHER_BYTES)
    found = [b"" if reply is None else reply.documents for reply in whole]
    remaining = (place for place, reply in enumerate(whole) if reply is None)

    async def read_each() -> None:
        for place in remaining:
            async with raw_batches(job.node, finds[place]) as batches:
                async for batch in batches:
                    found[place] += batch.documents
                    if len(found[place]) > HELD_BYTES:
                        found[place] = await _lightened(job, group[place], found[place])

    async with TaskGroup() as tasks:
        for _ in range(_READERS):
            tasks.create_task(read_each())
    return found


def _find(collection: Collection) -> Find:
    return Find(
        database=split(collection.target_ns)[0],
        uuid=Binary(collection.target_uuid, 4).hex(),
        label=collection.target_ns,
        read_concern={"level": "local"},
        batch_size=_HELD_DOCUMENTS,
    )


async def _lightened(job: Job, small: Small, held: bytes) -> bytes:
    """Delete what of it should not be there; answers the rest."""
    extra, _ = difference(small.data, held)
    await _apply(job, _deleting(small.collection, extra))
    gone = set(extra)
    left = (held[start:end] for start, end in documents(held))
    return b"".join(each for each in left if each not in gone)
