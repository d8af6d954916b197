"""Making room on the target.

A full restore leaves nothing of the target but what belongs to the server and to Tidelog; a
selective one drops the collections and views that bear a wanted name. Both also clear what an
earlier restore left behind that did not end. Many small collections that give way to themselves
stay, for loading to put right (see `keeping`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agent.faults import fault_point
from agent.mongo.apply.operations import apply_commands
from agent.mongo.apply.probe import wait_dropped
from agent.mongo.apply.structure import drop
from agent.mongo.apply.target import (
    Present,
    collections,
    databases,
    drop_database,
    find_all,
)
from agent.operations.restore.job import Job
from agent.operations.restore.keeping import kept
from agent.replay.scope import VIEWS, Scope, derived_uuid
from agent.wire.namespaces import TEMPORARY, USERS_AND_ROLES, is_archived, split

_KEPT: Final = frozenset({"admin", "config", "local"})


def gives_way(ns: str, scope: Scope) -> bool:
    """Whether a collection of this name is dropped, and none is there in the end but the backup's.
    Of a `system.views` a selective restore removes documents only."""
    if scope.is_full:
        return is_archived(ns) and ns not in USERS_AND_ROLES
    return scope.replaces(ns) and split(ns)[1] != VIEWS


def going(present: Sequence[Present], scope: Scope) -> list[Present]:
    """The collections of the target that a restore drops, in order of their names."""
    found = [p for p in present if gives_way(p.ns, scope)]
    left_behind = [p for p in present if split(p.ns)[1].startswith(TEMPORARY)]
    return sorted({p.uuid: p for p in (*found, *left_behind)}.values(), key=lambda p: p.ns)


async def wipe(job: Job) -> None:
    """Drop what gives way to the restore. May be repeated."""
    present = await collections(job.node)
    gone = going(present, job.scope)
    job.kept = frozenset(await kept(job, gone))
    if job.kept:
        # A worker before this one may have had such a database dropped, which goes on without it.
        for database in databases(p for p in gone if p.uuid in job.kept):
            job.check()
            await wait_dropped(job.node, database, derived_uuid(f"waiting/{database}"))
        present = await collections(job.node)
        gone = going(present, job.scope)
        job.kept &= {p.uuid for p in gone}
    job.keeper.note(keeps=bool(job.kept))
    one_by_one = _KEPT.union(databases(p for p in gone if p.uuid in job.kept))
    gone = [p for p in gone if p.uuid not in job.kept]
    await fault_point("restore.before_drop")
    if job.scope.is_full:
        for database in databases(gone):
            if database not in one_by_one:
                job.check()
                await drop_database(job.node, database)
        gone = [p for p in gone if split(p.ns)[0] in one_by_one]
    await _drop_each(job, gone)
    if not job.scope.is_full:
        for views in (p for p in present if split(p.ns)[1] == VIEWS):
            await drop_views(job, views)
    await fault_point("restore.dropped")


async def _drop_each(job: Job, gone: Sequence[Present]) -> None:
    for one in gone:
        job.check()
        await drop(job.node, one.ns, one.uuid)


async def drop_views(job: Job, views: Present) -> None:
    """Remove the wanted views from a `system.views` of the target."""
    for document in await find_all(job.node, views.ns):
        name = document["_id"]
        if isinstance(name, str) and job.scope.replaces(name):
            job.check()
            # One by one: the server loses track of several changes of views in one transaction.
            await apply_commands(job.node, [{"op": "d", "ns": views.ns, "o": {"_id": name}}])
