"""What a restore would do, for people who ask before they dare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agent.archive.manifest import SliceRef
from agent.mongo.node import Node
from agent.operations.restore.beginning import beginning_at
from agent.operations.restore.catalogue import base_catalogue
from agent.operations.restore.plan import Plan
from agent.operations.restore.preflight import Item, find_objects, wanted_objects
from agent.operations.restore.selecting import resolve, scope_of
from agent.storage.base import Storage
from agent.wire.specs import OplogReplaySpec, RestoreSpec

LOAD_BYTES_A_S: Final = 20 << 20
OPERATIONS_A_S: Final = 20_000


def estimated_s(load_bytes: int, operations: int) -> int:
    """About how long loading and replaying takes on a small server, in seconds; index builds come
    on top. Rates measured on two cores shared with mongod (docs/operations.md)."""
    return 1 + load_bytes // LOAD_BYTES_A_S + operations // OPERATIONS_A_S


async def describe(storage: Storage, spec: RestoreSpec, target: str, plan: Plan) -> dict[str, Any]:
    """One replica set's plan, for people; proves that every object is there."""
    scope = await resolve(storage, plan, scope_of(spec, plan))
    objects = wanted_objects(plan.manifest, scope)
    items: list[Item] = [*objects, *plan.slices]
    await find_objects(storage, items)
    catalogue = base_catalogue(plan.manifest, scope)
    wanted = {collection.uuid.hex() for collection in catalogue}
    segments = [s for item in objects for s in item.segments if s.uuid in wanted]
    return {
        "replset": target,
        "from": None if plan.share is None else plan.share.replset,
        "restored_to": plan.until.to_json(),
        "collections": len(catalogue),
        "documents": sum(segment.count for segment in segments),
        "bytes": sum(segment.length for segment in segments),
        "stored_bytes": sum(item.size_bytes for item in items),
        "slices": len(plan.slices),
        "operations": sum(item.count for item in plan.slices),
        "estimated_s": estimated_s(
            sum(segment.length for segment in segments), sum(item.count for item in plan.slices)
        ),
        "drops": "everything else" if scope.is_full else "what was named",
    }


async def described_replay(
    node: Node, storage: Storage, spec: OplogReplaySpec, slices: Sequence[SliceRef]
) -> dict[str, Any]:
    """The same for `ctl oplog-replay`; proves that what the span writes to is there, too. Whoever
    leads asks his own node, a secondary perhaps that lags by a moment."""
    await find_objects(storage, slices)
    beginning = await beginning_at(node, storage, spec, slices)
    # Those from before the span are read for transactions that began there.
    meant = [item for item in slices if item.end > spec.start]
    operations = sum(item.count for item in meant)
    return {
        "replset": node.replset,
        "from": source_of(spec, node.replset),
        "restored_to": spec.end.to_json(),
        "collections": len(beginning.collections),
        "stored_bytes": sum(item.size_bytes for item in meant),
        "slices": len(meant),
        "operations": operations,
        "estimated_s": estimated_s(0, operations),
        "drops": "nothing",
    }


def source_of(spec: OplogReplaySpec, target: str) -> str:
    """The replica set whose oplog is replayed onto this one."""
    return {to: source for source, to in spec.replset_remapping.items()}.get(target, target)
