"""Where `ctl oplog-replay` begins: the catalogue of the target, told in the words of the oplog.

A collection is found by the UUID it had at the source (a full restore keeps it), else by the name
it had when the span first mentions it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.archive.extended import to_extended
from agent.archive.manifest import CollectionEntry, SliceRef
from agent.errors import Refused
from agent.mongo.catalogue import CatalogueRow, read_catalogue
from agent.mongo.node import Node
from agent.operations.restore.reading import slice_entries
from agent.replay.mentions import Mentions
from agent.storage.base import Storage
from agent.wire.namespaces import is_archived
from agent.wire.record import Record
from agent.wire.specs import OplogReplaySpec


class Beginning(Record):
    """The collections of the target, under the UUIDs they have in the oplog."""

    collections: tuple[CollectionEntry, ...]
    target_uuids: dict[str, str]
    """`{UUID in the oplog: UUID on the target}`."""


async def beginning_at(
    node: Node, storage: Storage, spec: OplogReplaySpec, slices: Sequence[SliceRef]
) -> Beginning:
    """What this node has now, and what of it a span means. Raises `Refused` where the span writes
    to what is not there."""
    rows = await read_catalogue(node, await node.committed())
    by_uuid = {row.uuid: row for row in rows if is_archived(row.ns)}
    by_name = {row.ns: row for row in by_uuid.values()}
    targets = {uuid: uuid for uuid in by_uuid}
    for uuid, ns in (await _mentioned(storage, spec, slices)).items():
        if uuid in by_uuid or not is_archived(ns):
            continue
        if ns not in by_name:
            raise Refused(
                f"the oplog writes to {ns}, and there is no such collection here",
                hint="restore a backup from before the start of the span first",
            )
        targets.pop(by_name[ns].uuid, None)
        targets[uuid] = by_name[ns].uuid
    entries_found = [_entry(by_uuid[target], uuid) for uuid, target in targets.items()]
    return Beginning(collections=tuple(entries_found), target_uuids=targets)


async def _mentioned(
    storage: Storage, spec: OplogReplaySpec, slices: Sequence[SliceRef]
) -> dict[str, str]:
    """The collections that the span writes to and does not create, by UUID, with the names
    they have when they are first mentioned. Raises `Refused` for a transaction of which the slices
    do not hold all."""
    mentions = Mentions(spec.start, spec.end)
    try:
        for item in slices:
            for frame in await slice_entries(storage, item):
                mentions.read(frame)
                await asyncio.sleep(0)
        return mentions.found()
    finally:
        mentions.close()


def _entry(row: CatalogueRow, uuid: str) -> CollectionEntry:
    return CollectionEntry(
        ns=row.ns,
        uuid=uuid,
        options=to_extended(row.options),
        indexes=tuple(to_extended(spec) for spec in row.indexes),
    )
