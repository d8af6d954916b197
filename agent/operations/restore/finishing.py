"""After the last operation: indexes, the options that were held back, users and roles.

Indexes are built last, all of a collection in one pass, a few collections at a time. Then come the
options under which the server deletes documents by itself, and then the principals: after that the
agent's own user is what it was on the target before, and all others are the backup's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import bson

from agent.faults import fault_point
from agent.mongo.apply.building import build
from agent.mongo.apply.documents import RawDocument
from agent.mongo.apply.fencing import FENCE
from agent.mongo.apply.inserting import inserting
from agent.mongo.apply.principals import ROLES, USERS, merge, own_principals
from agent.mongo.apply.structure import change, drop, drop_index
from agent.mongo.apply.target import Present, collections
from agent.operations.restore.job import MARKER, Job
from agent.replay.catalogue import Collection
from agent.replay.scope import routing_copy
from agent.tasks import TaskGroup
from agent.wire.namespaces import ROUTING, split

_IDENTITY: Final = "_id_"


def indexes_to_build(collection: Collection, present: Present | None) -> list[dict[str, Any]]:
    """The specifications of those that the target does not have yet."""
    there = set(present.indexes) if present is not None else set()
    return [
        spec
        for name, spec in collection.indexes.items()
        if name != _IDENTITY and name not in there and not spec.get("clustered")
    ]


async def drop_indexes(job: Job, before: Mapping[bytes, Mapping[str, Any]]) -> None:
    """Drop those that the target had before and that the oplog has dropped or changed since; what
    was changed is built anew. `before` is `{UUID in the oplog: {name: specification}}`."""
    present = {p.uuid: p for p in await collections(job.node)}
    for collection in job.catalogue:
        found = present.get(collection.target_uuid)
        held = before.get(collection.uuid, {})
        gone = {
            name
            for name in (found.indexes if found else ())
            if name != _IDENTITY and name in held and collection.indexes.get(name) != held[name]
        }
        for name in sorted(gone):
            job.check()
            await drop_index(job.node, collection.target_ns, name)


async def build_indexes(job: Job) -> int:
    """Build what is missing; answers how many indexes there are."""
    present = {p.uuid: p for p in await collections(job.node)}
    work = [
        (collection, specs)
        for collection in job.catalogue
        if (specs := indexes_to_build(collection, present.get(collection.target_uuid)))
    ]
    remaining = iter(work)

    async def build_each() -> None:
        for collection, specs in remaining:
            job.check()
            await build(
                job.node,
                collection.target_ns,
                specs,
                is_collated="collation" in collection.options,
                commit_quorum=job.tuning.commit_quorum,
            )

    async with TaskGroup() as group:
        for _ in range(job.tuning.builders):
            group.create_task(build_each())
    await fault_point("restore.indexes_built")
    return sum(len(c.indexes) for c in job.catalogue)


async def set_expiry(job: Job) -> None:
    """Set the options that collections were created without."""
    for collection in job.catalogue:
        after = collection.options.get("expireAfterSeconds")
        if after is not None and collection.is_clustered:
            job.check()
            await change(job.node, collection.target_ns, {"expireAfterSeconds": after})
        if collection.options.get("temp"):
            job.keeper.warn(
                f"{collection.target_ns} was a temporary collection at that moment; it is an "
                "ordinary one now"
            )


async def merge_principals(job: Job) -> None:
    """Make users and roles those of the backup, but for the agent's own."""
    if job.scope.selection.users_and_roles:
        own = await own_principals(job.node)
        await _put(job, USERS, own.users)
        await _put(job, ROLES, own.roles)
        job.check()
        for database in merged_databases(job):
            await merge(job.node, database)


def merged_databases(job: Job) -> list[str | None]:
    """Whose users and roles are merged: of all databases at once (None), or of those whose
    collections are restored, one by one."""
    if job.scope.is_full:
        return [None]
    return [*sorted({split(c.ns)[0] for c in job.catalogue} - {"admin"})]


async def _put(job: Job, namespace: str, principals: Iterable[dict[str, Any]]) -> None:
    operations: list[RawDocument] = [
        inserting(namespace, bson.encode(principal)) for principal in principals
    ]
    if operations:
        await job.apply(operations, is_lenient=True)


async def clean_up(job: Job) -> None:
    """Drop our own collections."""
    for present in await collections(job.node):
        own = (USERS, ROLES, MARKER, *map(routing_copy, ROUTING))
        if present.ns in own or present.ns.startswith(FENCE):
            job.check()
            await drop(job.node, present.ns, present.uuid)
