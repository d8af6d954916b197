"""One end for all replica sets of a backup: `last_write`.

Each worker tells, once everything it read is durable and journalled, how far it read: an OpTime at
or after everything that any of its chunks shows. The lead takes the greatest of all, once, and
every worker archives its oplog up to it. A worker that takes a part over after that finds all
reading done in the journal, so it reads nothing later and the end stands.

An idle replica set would not come to that moment by itself: its worker appends a note to its
oplog, carrying the cluster time of the replica set that set the end (it goes from each worker to
the config servers, and from them to the others).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from agent.errors import NodeUnavailable, Refused, Transient
from agent.operations.context import LeadContext, PartContext
from agent.wire.operations import Operation
from agent.wire.optime import OpTime

LAST_WRITE_TIMEOUT_S: Final = 14 * 24 * 3600.0
"""As long as the work itself may take: who has read all waits for the largest replica set."""
PUSH_WITHIN_S: Final = 60.0
_PUSH_AGAIN_S: Final = 0.1


def chosen_end(operation: Operation) -> OpTime | None:
    """`last_write`, once it is chosen."""
    found = operation.result.get("last_write")
    return None if found is None else OpTime.from_document(found)


def read_end_of(operation: Operation, replset: str) -> OpTime | None:
    """How far a part has read, once it has read all."""
    part = operation.part(replset)
    found = None if part is None else part.result.get("read_end")
    return None if found is None else OpTime.from_document(found)


async def choose_end(lead: LeadContext, operation: Operation) -> bool:
    """Choose `last_write` when every part has read all; whether it is chosen. The cluster must
    still be the one that the backup began with."""
    if chosen_end(operation) is not None:
        return True
    ends = [read_end_of(operation, part.replset) for part in operation.parts]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return False
    await check_cluster(lead, [part.replset for part in operation.parts])
    await lead.services.operations.merge_result(
        operation.id, lead.lease.epoch, {"last_write": max(known).to_document()}
    )
    return True


async def check_cluster(lead: LeadContext, replsets: Sequence[str]) -> None:
    """Raises `Refused` where no backup can be consistent: while a collection is resharded, and
    when shards came or went since the parts were dealt out (`replsets`; none: not yet)."""
    cluster = lead.services.cluster
    resharded = await cluster.resharding()
    if resharded:
        raise Refused(
            f"{', '.join(resharded)} is being resharded, and no backup is taken meanwhile",
            hint="take the backup when resharding has ended, or abort it",
        )
    now = set((await cluster.topology()).replsets)
    if replsets and now != set(replsets):
        came, went = sorted(now - set(replsets)), sorted(set(replsets) - now)
        changes = [f"added: {', '.join(came)}"] * bool(came)
        changes += [f"removed: {', '.join(went)}"] * bool(went)
        raise Refused(
            f"the shards of the cluster changed while the backup ran ({'; '.join(changes)})",
            hint="take the backup again",
        )


async def check_served(lead: LeadContext, replsets: Sequence[str]) -> None:
    """Raises `Refused` for a replica set of which no agent is registered. One whose agents have
    died without a goodbye is waited for, since they may be starting again."""
    served = {node.replset for node in await lead.services.nodes.all()}
    alone = sorted(set(replsets) - served)
    if alone:
        raise Refused(
            f"no agent serves the replica set {', '.join(alone)}",
            hint="run an agent beside each node of every shard and of the config servers",
        )


async def agreed_end(part: PartContext, read_end: OpTime) -> OpTime:
    """Tell the lead how far this part has read, wait for its choice of `last_write`, and make sure
    that this replica set gets there. Raises `NodeUnavailable`."""
    services = part.services
    if services.node.is_sharded:
        await services.cluster.hear((await services.node.hello()).gossip)
    await part.record({"read_end": read_end.to_document()})
    end = await _chosen(part)
    if services.node.is_sharded:
        await _push(part, end)
    return end


async def _chosen(part: PartContext) -> OpTime:
    delay = 0.02
    try:
        async with asyncio.timeout(LAST_WRITE_TIMEOUT_S):
            while True:
                chosen = chosen_end(await part.refresh())
                if chosen is not None:
                    return chosen
                await part.services.clock.sleep(delay)
                delay = min(1.0, delay * 1.5)
    except TimeoutError:
        raise NodeUnavailable(
            "the lead chose no last_write: another replica set did not finish reading"
        ) from None


async def _push(part: PartContext, end: OpTime) -> None:
    """Append notes until the replica set has committed something at or after `end`."""
    services, deadline = part.services, part.services.clock.monotonic() + PUSH_WITHIN_S
    gossip = await services.cluster.tell()
    while (await services.node.hello()).majority < end:
        try:
            if await services.node.note("the end of a backup", after=gossip) >= end:
                return
        except Transient as error:
            if services.clock.monotonic() >= deadline:
                raise
            part.log.warning("oplog.note_failed", replset=part.replset, error=str(error))
        if services.clock.monotonic() >= deadline:
            raise NodeUnavailable(
                f"{part.replset} did not come to {end} within {PUSH_WITHIN_S:g} s",
                hint="check that it has a primary, and the clocks of its members",
            )
        await services.clock.sleep(_PUSH_AGAIN_S)
