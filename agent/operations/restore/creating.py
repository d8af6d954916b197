"""Creating the collections of the base, empty, with the UUIDs they had."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import bson
from bson import Int64

from agent.faults import fault_point
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.operations import apply_commands
from agent.mongo.apply.principals import ROLES, USERS
from agent.mongo.apply.structure import creating
from agent.operations.restore.job import MARKER, Job
from agent.replay.commands import creation
from agent.replay.scope import derived_uuid

AT_ONCE: Final = 64
FIRST_AT_ONCE: Final = 4
SHORT_S: Final = 0.25
LONG_S: Final = 0.5
"""The server carries out an array of commands under its global lock, which the leases in the same
server wait for, too. Creating a file takes a millisecond or, on a busy disk, a tenth of a second:
64 of those outlasted a lease, and the restore with it."""


async def create_all(job: Job) -> None:
    """Create every wanted collection, and our own. May be repeated: what is there stays."""
    wanted = [_own(job, MARKER)]
    if job.scope.selection.users_and_roles:
        present = {collection.target_ns for collection in job.catalogue}
        wanted += [_own(job, ns) for ns in (USERS, ROLES) if ns not in present]
    wanted += [
        creation(collection).document
        for collection in job.catalogue
        if not collection.is_ignored
        and not collection.is_filtered
        and collection.target_uuid not in job.kept
    ]
    remaining, at_once = iter(wanted), FIRST_AT_ONCE
    while batch := list(islice(remaining, at_once)):
        job.check()
        begun = job.clock.monotonic()
        await apply_commands(job.node, batch)
        at_once = next_size(at_once, job.clock.monotonic() - begun)
    await mark(job, 0)
    await fault_point("restore.created")


def next_size(at_once: int, took_s: float) -> int:
    """How many commands go into the next call, after so many took so many seconds."""
    if took_s > LONG_S:
        return max(1, at_once // 2)
    return min(AT_ONCE, at_once * 2) if took_s < SHORT_S else at_once


async def create_marker(job: Job) -> None:
    """Create the one collection of our own that a replay onto live data needs."""
    job.check()
    await apply_commands(job.node, [_own(job, MARKER)])
    if not job.keeper.state.replay_begun:
        await mark(job, 0)


def _own(job: Job, namespace: str) -> dict[str, Any]:
    """A collection of our own in `admin`."""
    return creating(namespace, derived_uuid(f"{job.op_id}/{namespace}"))


async def mark(job: Job, position: int) -> None:
    """Note on the target that all commands up to an entry are carried out."""
    document = {"_id": job.op_id, "at": Int64(position)}
    operation = {"op": "u", "ns": MARKER, "o": document, "o2": {"_id": job.op_id}}
    await job.apply([RawDocument(bson.encode(operation))], is_lenient=True)
