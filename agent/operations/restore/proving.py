"""Whether the target is what the backup says: all of it, and nothing else.

What is missing ends the restore. What is there beside it, or looks otherwise, does not: somebody
may have made a collection or an index while the restore ran, and hours of it are not lost for that.
It is told: in the report of a restore, and as a finding of a proof, where nobody else can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any, Final

import bson

from agent.errors import RestoreFailed
from agent.mongo.apply.principals import ROLES, USERS
from agent.mongo.apply.target import find_all, shapes
from agent.mongo.listing import Shape
from agent.operations.restore.finishing import merged_databases
from agent.operations.restore.job import Job
from agent.operations.restore.wiping import gives_way
from agent.replay.catalogue import Collection
from agent.wire.namespaces import USERS_AND_ROLES

NAMED: Final = 20
"""Differences that are told one by one; there may be 100,000."""
_ALONE: Final = "keep others from changing the target, and run the restore again"


async def prove_structure(job: Job) -> list[str]:
    """The target has the collections and indexes that the catalogue ends with, under the right
    names; answers what it has beside them, or otherwise. Raises `RestoreFailed` for what is
    missing."""
    for collection in job.catalogue:
        if collection.is_ignored:
            raise RestoreFailed(
                f"{collection.ns} was dropped while it was read, and the oplog does not say so"
            )
    wanted = {collection.target_uuid: collection for collection in job.catalogue}
    differences: list[str] = []
    async with aclosing(shapes(job.node)) as rows:
        async for shape in rows:
            here = wanted.pop(shape.uuid, None)
            if here is not None:
                if shape.ns != here.target_ns:
                    raise _missing(here, f"is called {shape.ns} there")
                differences += of_indexes(here, shape)
            elif gives_way(shape.ns, job.scope):
                differences.append(f"the collection {shape.ns} is not of the backup")
    for collection in wanted.values():
        if not collection.is_lazy:
            raise _missing(collection, "is not there")
    return differences


def _missing(collection: Collection, why: str) -> RestoreFailed:
    text = f"{collection.target_ns} should be on the target, and {why}"
    return RestoreFailed(text, hint=_ALONE)


def of_indexes(collection: Collection, shape: Shape) -> list[str]:
    """What a collection of the target has beside its indexes, or otherwise. Raises `RestoreFailed`
    for one that is missing."""
    there = {str(spec["name"]): spec for spec in shape.indexes}
    wanted = {name: s for name, s in collection.indexes.items() if not s.get("clustered")}
    for name in wanted:
        if name not in there:
            raise RestoreFailed(
                f"the index {name} of {shape.ns} should be on the target, and is not there",
                hint=_ALONE,
            )
    found = [
        f"the index {name} of {shape.ns} is not of the backup" for name in there.keys() - wanted
    ]
    for name, spec in wanted.items():
        if _decides(spec) != _decides(there[name]):
            found.append(f"the index {name} of {shape.ns} is another than that of the backup")
    if shape.is_building:
        found.append(f"an index of {shape.ns} is being built, and is not of the backup")
    return sorted(found)


def _decides(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an index holds and refuses. Old versions took any number for a flag or a direction, and
    newer ones write it as they like; filters stay as they were given."""
    filtered = bson.encode({"filter": spec.get("partialFilterExpression")})
    flags = bool(spec.get("unique")), bool(spec.get("sparse"))
    return list(spec["key"].items()), *flags, filtered


async def prove_principals(job: Job) -> list[str]:
    """The users and roles of the target are those that were merged into it; answers what there is
    beside them. To be asked before the temporary collections go. Raises `RestoreFailed`."""
    if not job.scope.selection.users_and_roles:
        return []
    databases = merged_databases(job)
    differences: list[str] = []
    for what, present, merged in zip(
        ("user", "role"), USERS_AND_ROLES, (USERS, ROLES), strict=True
    ):
        there, wanted = [
            named(await find_all(job.node, namespace), databases) for namespace in (present, merged)
        ]
        if lacking := sorted(wanted - there):
            raise RestoreFailed(
                f"the {what} {lacking[0]} should be on the target, and is not there", hint=_ALONE
            )
        differences += [
            f"the {what} {name} is not of the backup" for name in sorted(there - wanted)
        ]
    return differences


def named(principals: Iterable[Mapping[str, Any]], databases: list[str | None]) -> set[str]:
    """The names of users or roles, `database.name`, of these databases; of all with None."""
    return {str(one["_id"]) for one in principals if None in databases or one["db"] in databases}


def told(differences: list[str]) -> list[str]:
    """The first ones, and how many more there are."""
    more = len(differences) - NAMED
    return differences[:NAMED] + ([f"{more} more differences"] if more > 0 else [])
