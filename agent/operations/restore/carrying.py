"""Carrying out the commands that a replay asks for."""

from __future__ import annotations

from agent.mongo.apply.operations import apply_commands
from agent.mongo.apply.structure import change, drop, empty, rename
from agent.mongo.apply.target import collections
from agent.operations.restore.job import Job
from agent.operations.restore.wiping import drop_views
from agent.replay.commands import Command, Effect


async def carry_out(job: Job, command: Command) -> None:
    """Do on the target what the command says. Raises `CommandFailed`, `NodeUnavailable`."""
    node, namespace, uuid = job.node, command.target_ns, command.target_uuid
    told = command.document["o"]
    job.check()
    if command.effect is Effect.CREATE:
        await apply_commands(node, [command.document])
    elif command.effect is Effect.DROP:
        await drop(node, namespace, uuid)
    elif command.effect is Effect.RENAME:
        replaced = told.get("dropTarget")
        before = told["renameCollection"]
        await rename(node, before, namespace, uuid, None if replaced is None else bytes(replaced))
    elif command.effect is Effect.CHANGE:
        await change(node, namespace, {k: v for k, v in told.items() if k != "collMod"})
    elif command.effect is Effect.EMPTY:
        await empty(node, namespace, uuid)
    else:
        await _drop_views(job, uuid)


async def _drop_views(job: Job, uuid: bytes) -> None:
    for present in await collections(job.node):
        if present.uuid == uuid:
            await drop_views(job, present)
