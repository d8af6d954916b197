"""Restoring into a scratch server with the very code of restores.

A backup is planned for a replica set of one that has the name of its own, and the work of restores
runs in this agent against the scratch server: storage, keys and credentials are those that the
agent has anyway, so none has to be passed on. The repository is read only: the story of a restore
is mirrored to it otherwise, and here it is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.errors import Refused
from agent.mongo.node import Node
from agent.operations.context import PartContext, Services
from agent.operations.restore.kind import make_plans, sources
from agent.operations.restore.plan import Plan, read_backup
from agent.operations.restore.work import RestoreWork
from agent.operations.scratch.place import Place
from agent.operations.scratch.server import scratch_server
from agent.store.connection import open_control
from agent.store.slice_runs import SliceRuns
from agent.wire.operations import Operation
from agent.wire.specs import RestoreSpec
from agent.wire.topology import unsharded

SPACE_FACTOR: Final = 1.5
"""Of the documents' size: compression saves more than indexes take, mostly; the rest is margin."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A scratch server that holds a backup."""

    node: Node
    plan: Plan
    report: dict[str, Any]
    """As `RestoreWork` answers it."""
    took_s: float


@asynccontextmanager
async def restored(
    part: PartContext,
    place: Place,
    spec: RestoreSpec,
    profile: str,
) -> AsyncIterator[Restored]:
    """A scratch server with the backup at the wanted moment, removed at the end. Raises `Refused`
    for what a replica set of one cannot hold, and what restores raise."""
    services, clock = part.services, part.services.clock
    async with sources(services, part.settings, profile, spec) as found:
        backup = await read_backup(found.base, spec.backup)
        if backup.is_sharded:
            raise Refused(
                f"the backup {backup.id} is of a sharded cluster, and a scratch server is a replica"
                " set of one: transactions over shards could not be judged there",
                hint="'ctl verify --deep' reads all of it; restore it into a test cluster to prove"
                " it",
            )
        topology = unsharded(backup.replsets[0].replset)
        (plan,) = (await make_plans(services, found, spec, topology)).values()
        place.require_space(int(SPACE_FACTOR * plan.manifest.plain_bytes))
        async with scratch_server(place, part.operation.id, topology.members[0].replset) as node:
            control = await open_control(node.uri, app_name="tidelog-scratch")
            try:
                own = replace(services, node=node, runs=SliceRuns(control))
                mine = _own(part, own, plan)
                started = clock.monotonic()
                work = RestoreWork(mine, found.of(plan), spec, plan, found.all, is_mirrored=False)
                report = await work.run()
                yield Restored(node, plan, report, clock.monotonic() - started)
            finally:
                await control.aclose()


def _own(part: PartContext, services: Services, plan: Plan) -> PartContext:
    """The context of one who restores nothing that others see: how far it is, is told; nothing is
    recorded, and nothing recorded is gone on with."""
    alone = part.operation.model_copy(update={"parts": ()})

    async def refresh() -> Operation:
        await part.refresh()
        return alone

    async def record(fields: dict[str, Any], **_: Any) -> None:
        part.lease.check()

    return replace(
        part,
        services=services,
        operation=alone,
        replset=plan.target.replset,
        refresh=refresh,
        record=record,
    )
