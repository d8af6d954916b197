"""What a command works with: the repositories over the control database, and the output."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog

from agent.clock import Clock, SystemClock
from agent.errors import ConfigError
from agent.store.catalog import Catalog
from agent.store.cluster import ClusterView
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, open_control, translated
from agent.store.encryption_store import EncryptionStore
from agent.store.events import EventLog
from agent.store.lease_store import LeaseStore
from agent.store.limits_store import LimitsStore
from agent.store.node_registry import NodeRegistry
from agent.store.operation_log import OperationLog
from agent.store.overview_reading import read_hello
from agent.store.repositories import RepositoryStore
from agent.store.schedule_store import ScheduleStore
from agent.store.schema import ensure_schema
from agent.store.settings_store import SettingsStore
from agent.store.slice_runs import SliceRuns
from agent.wire.topology import Topology
from ctl.invocation import Invocation
from ctl.output import Output

APP_NAME: Final = "tidelog-ctl"


@dataclass(frozen=True, slots=True)
class Session:
    """An open connection to the control database of one cluster."""

    invocation: Invocation
    control: Control
    operations: OperationLog
    nodes: NodeRegistry
    catalog: Catalog
    settings: SettingsStore
    repositories: RepositoryStore
    leases: LeaseStore
    runs: SliceRuns
    schedule: ScheduleStore
    events: EventLog
    commands: CommandQueue
    encryption: EncryptionStore
    limits: LimitsStore
    clock: Clock

    @property
    def output(self) -> Output:
        """Where answers go."""
        return self.invocation.output

    async def databases(self) -> dict[str, int]:
        """The databases of the lead replica set and their sizes on disk."""
        with translated("listing the databases"):
            reply = await self.control.database.client.list_databases()
            return {row["name"]: int(row.get("sizeOnDisk", 0)) async for row in reply}

    async def hello(self) -> dict[str, Any]:
        """What the primary of the lead replica set says of its set."""
        return await read_hello(self.control)

    async def topology(self) -> Topology:
        """The replica sets of the cluster."""
        return await ClusterView(self.control).topology()


@asynccontextmanager
async def open_session(invocation: Invocation) -> AsyncIterator[Session]:
    """Connect to the lead replica set and close again. Raises `ConfigError` without an address,
    `StoreUnavailable` when nobody answers, `UnsupportedVersion` for a newer control database."""
    if not invocation.mongodb_uri:
        raise ConfigError(
            "no connection string is given",
            hint="add --mongodb-uri mongodb://user:password@host:port/ or set TIDELOG_MONGODB_URI",
        )
    # What the store logs is for the agents' logs; here an error says what there is to say.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    control = await open_control(invocation.mongodb_uri, app_name=APP_NAME)
    try:
        await ensure_schema(control)
        yield Session(
            invocation=invocation,
            control=control,
            operations=OperationLog(control),
            nodes=NodeRegistry(control),
            catalog=Catalog(control),
            settings=SettingsStore(control),
            repositories=RepositoryStore(control),
            leases=LeaseStore(control),
            runs=SliceRuns(control),
            schedule=ScheduleStore(control),
            events=EventLog(control),
            commands=CommandQueue(control),
            encryption=EncryptionStore(control),
            limits=LimitsStore(control),
            clock=SystemClock(),
        )
    finally:
        await control.aclose()
