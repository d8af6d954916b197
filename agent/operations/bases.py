"""Backups as bases of point-in-time recovery: where slices may begin, and asking for one."""

from __future__ import annotations

from typing import Final

from agent.clock import jittered
from agent.mongo.oplog import oldest_entry
from agent.operations.context import Services
from agent.wire.operations import Kind, Operation, State
from agent.wire.optime import ZERO, OpTime
from agent.wire.specs import BackupSpec

_ASKING: Final = "base/asking"
_ASK_AGAIN_S: Final = 0.3
_NOT_BEGUN: Final = frozenset({State.REQUESTED, State.ELECTING, State.PREPARING})


async def first_base(services: Services) -> OpTime | None:
    """Where slicing may begin so that the newest backup of everything, taken while nobody sliced,
    can be carried on from: None where the oplog no longer reaches it. A restore that has touched
    the replica set since then has ended that timeline, however it ended itself. When it was asked
    for says nothing: it may have waited in line while that backup was taken."""
    known = await services.catalog.backups()
    touched = await services.runs.touched_at(services.node.replset) or ZERO
    bases = [
        b.last_write
        for b in known
        if b.cluster_id == services.cluster_id
        and not b.is_selective
        and any(part.replset == services.node.replset for part in b.replsets)
        and b.last_write > touched
    ]
    oldest = await oldest_entry(services.node)
    return max((base for base in bases if base > oldest), default=None)


async def ask_for_base(services: Services) -> None:
    """Ask for a backup of everything, unless one waits to begin. Replica sets of a cluster find out
    together that they need one, and one serves them all: they ask one after the other."""
    while (lease := await services.leases.acquire(_ASKING, services.node.id)) is None:
        await services.clock.sleep(jittered(_ASK_AGAIN_S))
    try:
        if not any(map(_will_be_base, await services.operations.active())):
            await services.operations.submit(
                Kind.BACKUP,
                BackupSpec().to_document(),
                requested_by=f"{services.node.id} (pitr.autoBase)",
                queue=True,
            )
    finally:
        await services.leases.release(lease)


def _will_be_base(operation: Operation) -> bool:
    """A backup of everything that has not begun to read: it will be consistent at a later moment
    than now."""
    if operation.kind is not Kind.BACKUP or operation.state not in _NOT_BEGUN:
        return False
    return not BackupSpec.from_document(operation.spec).is_selective
