"""What the code of an operation may use, and the shape every kind of operation has.

A kind is one object with four moments. The *lead* (one agent of the lead replica set, fenced by the
lead lease) calls `choose` once, `advance` whenever a part changed while the operation runs, and
`finish` when all parts are done. The *workers* (one agent a replica set, fenced by the work
lease) call `work`. Any of them may be called again by another agent after a crash, so each is
written to go on from what is durable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from agent.clock import Clock
from agent.coordination.lease import HeldLease, Holder
from agent.mongo.node import Node
from agent.operations.governor import Governor
from agent.storage.base import Storage
from agent.store.balancer import Balancer
from agent.store.catalog import Catalog
from agent.store.cluster import ClusterView
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.store.operation_log import OperationLog
from agent.store.repositories import RepositoryStore
from agent.store.schedule_store import ScheduleStore
from agent.store.settings_store import SettingsStore
from agent.store.slice_runs import SliceRuns
from agent.wire.operations import Kind, Operation, Progress
from agent.wire.settings import Settings

Logger = structlog.stdlib.BoundLogger


@dataclass(frozen=True, slots=True)
class Services:
    """What this agent works with; opened and closed by `agent.service`."""

    node: Node
    cluster_id: str
    operations: OperationLog
    catalog: Catalog
    runs: SliceRuns
    leases: LeaseStore
    holder: Holder
    """Of all leases of this agent."""
    nodes: NodeRegistry
    settings: SettingsStore
    cluster: ClusterView
    balancer: Balancer
    repositories: RepositoryStore
    governor: Governor
    schedule: ScheduleStore
    open_storage: Callable[[Settings, str], Awaitable[Storage]]
    """`(settings, profile)` → an open storage that the caller closes. Raises `ConfigError`."""
    clock: Clock
    budget_bytes: int
    """Memory for one running operation."""


class Recorded(Protocol):
    """How a worker writes of its part what others have to know."""

    async def __call__(
        self, fields: dict[str, Any], *, note: str | None = None, progress: Progress | None = None
    ) -> None:
        """Merge fields into the part's result and wake the lead; a note enters the history of the
        operation. Raises `LeaseLost` when superseded."""


@dataclass(frozen=True, slots=True)
class LeadContext:
    """Leading one operation. Writes through `services.operations` must carry `lease.epoch`."""

    services: Services
    settings: Settings
    lease: HeldLease
    log: Logger


@dataclass(frozen=True, slots=True)
class PartContext:
    """Working on one part. `lease.check()` before every durable act; `refresh` reads the operation
    again (and raises `OperationCancelled` when a person cancelled it); `report` and `record` write
    the part's progress and result, fenced by the epoch (raising `LeaseLost` when superseded)."""

    services: Services
    settings: Settings
    operation: Operation
    replset: str
    lease: HeldLease
    log: Logger
    refresh: Callable[[], Awaitable[Operation]]
    report: Callable[[Progress], Awaitable[None]]
    record: Recorded


class OperationKind(Protocol):
    """One kind of operation."""

    kind: Kind

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """Check what can be checked before anything starts; answer the replica sets that get a
        part (none: the lead does all in `finish`). Raises `Refused` or `ConfigError`."""

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """React to changed parts while running, e.g. set `result.last_write`."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """Do one replica set's share; the answer is merged into the part's result."""

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Publish; idempotent. The answer is merged into the operation's result."""
