"""A shard's share of changes of structure that were under way at the moment restored to.

The rule is `agent.replay.unfinished`; the config servers' share is in `merging`. Everything may be
repeated.
"""

from __future__ import annotations

from typing import Final

from agent.mongo.apply.structure import drop, rename
from agent.mongo.apply.target import Present, collections, drop_database
from agent.operations.restore.job import Job
from agent.replay.unfinished import Change, Unfinished
from agent.wire.namespaces import split
from agent.wire.operations import Operation

UNFINISHED: Final = "unfinished"
"""The field of the operation's result that says what all parts have to finish."""


def unfinished_of(operation: Operation) -> tuple[Unfinished, ...]:
    """What the lead found before the parts began."""
    return tuple(Unfinished.from_binary(data) for data in operation.result.get(UNFINISHED, ()))


async def finish_changes(job: Job) -> None:
    """Finish what this shard had not done yet."""
    for change in job.unfinished:
        present = await collections(job.node)
        if change.change is Change.RENAME:
            await _rename(job, change, present)
        else:
            await _drop(job, change, present)
        job.keeper.warn(f"{change} at that moment; it was finished, as the cluster would have")


async def _rename(job: Job, change: Unfinished, present: list[Present]) -> None:
    uuid = bytes((change.row or {})["uuid"])
    here = next((p for p in present if p.ns == change.namespace and p.uuid == uuid), None)
    if here is None:
        return
    there = next((p for p in present if p.ns == change.to), None)
    job.check()
    if there is not None:
        await drop(job.node, there.ns, there.uuid)
    await rename(job.node, change.namespace, change.to, uuid, None)


async def _drop(job: Job, change: Unfinished, present: list[Present]) -> None:
    for one in present:
        if change.touches(one.ns):
            job.check()
            await drop(job.node, one.ns, one.uuid)
    if change.change is Change.DROP_DATABASE and any(
        split(one.ns)[0] == change.namespace for one in present
    ):
        job.check()
        await drop_database(job.node, change.namespace)
