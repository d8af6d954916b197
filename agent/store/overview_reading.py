"""Everything that `ctl status`, the page and the metrics show, in one reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from agent.store.catalog import Catalog
from agent.store.cluster import ClusterView
from agent.store.connection import Control, translated
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.store.operation_log import OperationLog
from agent.store.repositories import RepositoryStore
from agent.store.schedule_store import ScheduleStore
from agent.store.settings_store import SettingsStore
from agent.store.slice_runs import SliceRuns
from agent.wire.overview import Member, Overview
from agent.wire.topology import Topology

RECENT: Final = 50


class Sources(Protocol):
    """The repositories over the control database that are read."""

    @property
    def control(self) -> Control:
        """The connection."""

    @property
    def operations(self) -> OperationLog:
        """What runs and ran."""

    @property
    def nodes(self) -> NodeRegistry:
        """The agents."""

    @property
    def catalog(self) -> Catalog:
        """Backups and restores."""

    @property
    def settings(self) -> SettingsStore:
        """Those of the cluster."""

    @property
    def leases(self) -> LeaseStore:
        """Who may act."""

    @property
    def runs(self) -> SliceRuns:
        """What is archived of the oplog."""

    @property
    def repositories(self) -> RepositoryStore:
        """Which repository each profile leads to."""

    @property
    def schedule(self) -> ScheduleStore:
        """What the scheduler remembers."""

    async def hello(self) -> dict[str, Any]:
        """What the primary of the lead replica set says of its set."""

    async def topology(self) -> Topology:
        """The replica sets of the cluster."""


@dataclass(frozen=True, slots=True)
class ControlSources:
    """All of them over one connection."""

    control: Control
    operations: OperationLog
    nodes: NodeRegistry
    catalog: Catalog
    settings: SettingsStore
    leases: LeaseStore
    runs: SliceRuns
    repositories: RepositoryStore
    schedule: ScheduleStore

    @classmethod
    def over(cls, control: Control) -> Self:
        """Made anew."""
        return cls(
            control=control,
            operations=OperationLog(control),
            nodes=NodeRegistry(control),
            catalog=Catalog(control),
            settings=SettingsStore(control),
            leases=LeaseStore(control),
            runs=SliceRuns(control),
            repositories=RepositoryStore(control),
            schedule=ScheduleStore(control),
        )

    async def hello(self) -> dict[str, Any]:
        """See `Sources`."""
        return await read_hello(self.control)

    async def topology(self) -> Topology:
        """See `Sources`."""
        return await ClusterView(self.control).topology()


async def read_hello(control: Control) -> dict[str, Any]:
    """What the primary of the lead replica set says of its set."""
    with translated("asking for the members of the replica set"):
        return dict(await control.database.command("hello"))


async def read_overview(sources: Sources) -> Overview:
    """One query each; raises `StoreUnavailable`. The moment it is of comes first, so that nothing
    shown is older than it says."""
    settings, _ = await sources.settings.read()
    hello = await sources.hello()
    return Overview(
        now=await sources.control.now(),
        replset=sources.control.replset,
        members=_members(hello),
        server_time=hello.get("localTime"),
        nodes=tuple(await sources.nodes.all()),
        settings=settings,
        active=tuple(await sources.operations.active()),
        recent=tuple(await sources.operations.recent(RECENT)),
        backups=tuple(await sources.catalog.backups()),
        leases=await sources.leases.held(),
        runs=tuple(await sources.runs.runs()),
        gaps=tuple(await sources.runs.gaps()),
        troubles=await sources.runs.troubles(),
        repositories=await sources.repositories.read(),
        cluster_id=await sources.control.read_cluster_id(),
        topology=await sources.topology(),
        schedule=await sources.schedule.read(),
    )


def _members(hello: dict[str, Any]) -> tuple[Member, ...]:
    """The members as the primary tells everybody: all but hidden ones."""
    hosts = [*hello.get("hosts", ()), *hello.get("passives", ())]
    arbiters = [Member(host, is_arbiter=True) for host in hello.get("arbiters", ())]
    return (*(Member(host, is_arbiter=False) for host in hosts), *arbiters)
