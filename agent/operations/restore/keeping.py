"""Collections of the target that stay, and get what they should hold put right.

Dropping a collection and making it anew costs the server some milliseconds, and more the more
collections there are, since it copies the table of all of them for each. Reading five documents,
and writing those that differ, costs a twentieth. So where many small collections give way to
themselves (the same UUID, name, options and indexes), they are not dropped: loading compares what
they hold with what the backup has.

Only plain collections stay, and only with indexes that no document can be refused by or lost to,
whatever it is replayed to. An index that the oplog changes is dropped at the end and built anew.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import bson

from agent.archive.manifest import Segment
from agent.mongo.apply.target import Present, shapes
from agent.mongo.catalogue import collection_sizes, total_sizes
from agent.mongo.listing import Shape
from agent.operations.restore.job import Job
from agent.replay.catalogue import Collection
from agent.wire.namespaces import split

KEEP_FROM: Final = 100
"""So many of a database make it worth it. Fewer are dropped: what is made anew carries nothing over
from before, not even its files."""
SMALL_BYTES: Final = 64 << 10
SMALL_DOCUMENTS: Final = 256
READ_BYTES: Final = 16 << 10
"""What there may be to read for each that stays, on average: more would cost what dropping does."""
_LARGE_AT_MOST: Final = 64
_OPTIONS: Final = frozenset({"validator", "validationLevel", "validationAction"})
_INDEX: Final = frozenset({"v", "key", "name", "hidden", "sparse"})
_VERSION: Final = 2
_ELSEWHERE: Final = frozenset({"admin", "config", "local"})


def small_collections(job: Job) -> dict[str, Collection]:
    """Plain collections of which the backup holds a few documents in one piece, by the UUID that
    they have in it."""
    pieces: Counter[str] = Counter()
    small: dict[str, Segment] = {}
    for item in job.base.objects:
        for segment in item.segments:
            pieces[segment.uuid] += 1
            if 0 < segment.count <= SMALL_DOCUMENTS and segment.length <= SMALL_BYTES:
                small[segment.uuid] = segment
    found: dict[str, Collection] = {}
    for collection in job.catalogue:
        uuid = collection.uuid.hex()
        if pieces[uuid] == 1 and uuid in small and _is_plain(collection):
            found[uuid] = collection
    return found


def _is_plain(collection: Collection) -> bool:
    database, name = split(collection.target_ns)
    return (
        not collection.is_ignored
        and not name.startswith("system.")
        and database not in _ELSEWHERE
        and _OPTIONS.issuperset(collection.options)
    )


async def kept(job: Job, going: Sequence[Present]) -> set[bytes]:
    """The UUIDs of those that stay, of the target's collections that would be dropped."""
    if job.node.is_sharded:
        # What a shard knows of a collection goes with it.
        return set()
    there = {present.uuid: present.ns for present in going}
    wanted = {
        collection.target_uuid: collection
        for collection in small_collections(job).values()
        if there.get(collection.target_uuid) == collection.target_ns
    }
    promising = Counter(split(one.target_ns)[0] for one in wanted.values())
    databases = {database for database, count in promising.items() if count >= KEEP_FROM}
    # A view or a time series goes with its whole database only.
    databases -= {split(ns)[0] for ns in there.values() if split(ns)[1].startswith("system.")}
    if not databases:
        return set()
    found: dict[str, set[bytes]] = defaultdict(set)
    async with aclosing(shapes(job.node, databases)) as rows:
        async for shape in rows:
            collection = wanted.get(shape.uuid)
            if collection is not None and is_same(collection, shape):
                found[split(shape.ns)[0]].add(shape.uuid)
    return {
        uuid
        for database, uuids in found.items()
        if len(uuids) >= KEEP_FROM and await _is_light(job, database, uuids, going)
        for uuid in uuids
    }


def is_same(collection: Collection, shape: Shape) -> bool:
    """Whether a collection of the target is what creating it would make, with no index but its own
    that could refuse or delete documents."""
    if shape.ns != collection.target_ns or shape.is_building:
        return False
    there = {spec["name"]: spec for spec in shape.indexes}
    return (
        _encoded(shape.options) == _encoded(collection.creation())
        and "_id_" in there
        and there.keys() == collection.indexes.keys()
        and all(
            _encoded(spec) == _encoded(collection.indexes[name]) and _is_harmless(spec)
            for name, spec in there.items()
        )
    )


def _encoded(document: Mapping[str, Any]) -> bytes:
    return bson.encode(document)


def _is_harmless(spec: Mapping[str, Any]) -> bool:
    """Of one field in ascending or descending order: such an index takes any document, but for
    decimals in those of old versions, and places in arrays that are ambiguous (`a.0`)."""
    key = spec["key"]
    return (
        _INDEX.issuperset(spec)
        and spec["v"] == _VERSION
        and len(key) == 1
        and all(value in (1, -1) and _is_plain_path(field) for field, value in key.items())
    )


def _is_plain_path(field: str) -> bool:
    return "$" not in field and not any(part.isdigit() for part in field.split("."))


async def _is_light(job: Job, database: str, uuids: set[bytes], going: Sequence[Present]) -> bool:
    """Whether what these hold on the target is little to read, as far as sizes tell."""
    others = [p.ns for p in going if split(p.ns)[0] == database and p.uuid not in uuids]
    if len(others) > _LARGE_AT_MOST:
        others = []
    held = (await total_sizes(job.node, [database])).bytes
    for namespace in others:
        held -= (await collection_sizes(job.node, namespace)).bytes
    return held <= READ_BYTES * len(uuids)


def indexes_of_base(job: Job) -> dict[bytes, dict[str, dict[str, Any]]]:
    """The indexes that collections which stay may have had all along, as `drop_indexes` takes
    them. To be asked before the oplog changes the catalogue."""
    return {c.uuid: dict(c.indexes) for c in job.catalogue if len(c.indexes) > 1}
