"""Restoring into scratch servers with the very code of restores.

Each replica set's share of a backup is restored into a server of its own, a replica set of one that
has the name of the share's, by the work of restores in this agent: storage, keys and credentials
are those that the agent has anyway, so none has to be passed on. The repository is read only: the
story of a restore is mirrored to it otherwise, and here it is not.

Of a sharded cluster one agent restores all shares, one after the other (docs/decisions/0020). The
config servers come first, and their server stays: it holds the routing tables of the moment, by
which each shard keeps what is its own. All look at the same evidence for transactions over several
shards, which is pinned before the first begins, as the lead of a restore does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.mongo.node import Node
from agent.mongo.scratch import index_ranges
from agent.operations.context import PartContext, Services
from agent.operations.restore.cluster import check_shards, find_unfinished
from agent.operations.restore.deciding import EVIDENCE, pin_evidence
from agent.operations.restore.ending import UNFINISHED
from agent.operations.restore.kind import Sources, make_plans, sources
from agent.operations.restore.plan import Plan, read_backup
from agent.operations.restore.proving import told
from agent.operations.restore.selecting import check_found, scope_of
from agent.operations.restore.work import RestoreWork
from agent.operations.scratch.place import Place
from agent.operations.scratch.server import scratch_server
from agent.store.cluster import ClusterView
from agent.store.connection import Control, open_control
from agent.store.slice_runs import SliceRuns
from agent.wire.backups import Backup
from agent.wire.operations import Operation, Progress
from agent.wire.specs import RestoreSpec
from agent.wire.topology import Member, Topology

SPACE_FACTOR: Final = 1.5
"""Of the documents' size: compression saves more than indexes take, mostly; the rest is margin."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A scratch server that holds one replica set's share of a backup."""

    node: Node
    control: Control
    """The same server, for those who read routing tables."""
    plan: Plan
    report: dict[str, Any]
    """As `RestoreWork` answers it."""
    orphans: Counter[str]
    """Documents that were left out, since the shard does not own them, by namespace."""
    differences: tuple[str, ...]
    """What the server holds beside what the backup has, or otherwise."""
    is_finished_later: bool
    """Whether a change of structure was under way at that moment, and was brought to its end."""
    took_s: float


@asynccontextmanager
async def planned(
    part: PartContext, place: Place, spec: RestoreSpec, profile: str
) -> AsyncIterator[Scratch]:
    """Everything found out that is the same for all shares. Raises `Refused` for a moment that no
    restore could go to, and what restores raise before they begin."""
    async with sources(part.services, part.settings, profile, spec) as found:
        backup = await read_backup(found.base, spec.backup)
        plans = await make_plans(part.services, found, spec, _topology(backup))
        pinned: dict[str, Any] = {}
        config = next((plan for plan in plans.values() if plan.target.is_config), None)
        if config is not None:
            await check_shards(found.of(config), config)
            await check_found(found.of, list(plans.values()), scope_of(spec, config))
            pinned[EVIDENCE] = await pin_evidence(found.all, config)
            unfinished = await find_unfinished(found.of, spec, plans)
            pinned[UNFINISHED] = [change.to_binary() for change in unfinished]
        # The config servers first.
        ordered = sorted(plans.values(), key=lambda plan: not plan.target.is_config)
        yield Scratch(part, place, spec, found, ordered, pinned)


class Scratch:
    """Restores the shares of one backup, one server each."""

    def __init__(
        self,
        part: PartContext,
        place: Place,
        spec: RestoreSpec,
        found: Sources,
        plans: Sequence[Plan],
        pinned: Mapping[str, Any],
    ) -> None:
        self.plans = plans
        """One a replica set; of a sharded cluster that of the config servers first."""
        self._part = part
        self._place = place
        self._spec = spec
        self._found = found
        self._pinned = pinned

    @asynccontextmanager
    async def restored(
        self, plan: Plan, *, routing: Restored | None = None
    ) -> AsyncIterator[Restored]:
        """A scratch server with one share at the wanted moment, removed at the end. `routing` are
        the restored config servers, for a shard. Raises what restores raise."""
        part, clock = self._part, self._part.services.clock
        self._place.require_space(int(SPACE_FACTOR * plan.manifest.plain_bytes))
        # The operation's id first: what is left behind says whose it was.
        name = f"{part.operation.id}-{self.plans.index(plan)}"
        async with scratch_server(self._place, name, plan.target.replset) as node:
            control = await open_control(node.uri, app_name="tidelog-scratch")
            try:
                if plan.target.is_config:
                    await index_ranges(node)
                own = replace(
                    part.services,
                    node=node,
                    runs=SliceRuns(control),
                    cluster=ClusterView(control if routing is None else routing.control),
                )
                started = clock.monotonic()
                work = RestoreWork(
                    _own(part, own, plan, self._pinned),
                    self._found.of(plan),
                    self._spec,
                    plan,
                    self._found.all,
                    is_scratch=True,
                )
                report = await work.run()
                took_s = clock.monotonic() - started
                yield Restored(
                    node,
                    control,
                    plan,
                    report,
                    work.orphans,
                    tuple(told(work.differences)),
                    is_finished_later=bool(self._pinned.get(UNFINISHED)),
                    took_s=took_s,
                )
            finally:
                await control.aclose()


def _topology(backup: Backup) -> Topology:
    """That of the cluster that was backed up."""
    return Topology(
        members=tuple(
            Member(replset=share.replset, shard=share.shard, is_config=share.is_config)
            for share in backup.replsets
        )
    )


def _own(
    part: PartContext, services: Services, plan: Plan, pinned: Mapping[str, Any]
) -> PartContext:
    """The context of one who restores nothing that others see: how far it is, is told; nothing is
    recorded, nothing recorded is gone on with, and nobody is waited for."""
    alone = part.operation.model_copy(update={"parts": (), "result": dict(pinned)})

    async def refresh() -> Operation:
        await part.refresh()
        return alone

    async def record(fields: dict[str, Any], **_: Any) -> None:
        part.lease.check()

    async def report(progress: Progress) -> None:
        if plan.topology.is_sharded:
            stage = f"{plan.target.replset}: {progress.stage}"
            progress = progress.model_copy(update={"stage": stage})
        await part.report(progress)

    return replace(
        part,
        services=services,
        operation=alone,
        replset=plan.target.replset,
        refresh=refresh,
        record=record,
        report=report,
    )
