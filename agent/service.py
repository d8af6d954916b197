"""The composition root: opens everything, runs everything in one task group, and ends it.

    TaskGroup "agent"
     ├─ heartbeat        node lease and heartbeats; ends the agent when the database stays away
     ├─ feed             wake-ups of the control database → the waiters below
     ├─ runner           one session a lease: bid → holder.hold → lead or work
     ├─ slicer           the oplog of this replica set, while PITR is on and the lease is ours
     ├─ balancer keeper  on config servers: the balancer is put back for those that died
     ├─ leftover keeper  on primaries: what a restore left behind that could not end is dropped
     ├─ membership       ends the agent when its replica set became a shard
     ├─ storage checks   answers to `ctl storage check`
     ├─ scheduler        schedules and retention, while the lease is ours
     ├─ settings watch   priority of this node, storage check
     ├─ key watch        whether the keys of the encryption can be used, here and in a year
     ├─ http             page, health and metrics, where `listen` asks for them
     ├─ notifier         webhooks, on one agent of the lead replica set
     ├─ events           copies of log lines → control database
     ├─ watchdog         tells systemd that the event loop turns
     └─ stop listener    drains the runner for a grace time, then ends the group

Whatever ends the group, leases are released, parts handed over and the registry told, each within
a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

import structlog

from agent import systemd
from agent.archive.keyring import Custody
from agent.clock import Clock, SystemClock, jittered
from agent.config import Config
from agent.coordination.heartbeat import Condition, Heartbeat
from agent.coordination.lease import Holder
from agent.coordination.membership import Membership
from agent.coordination.recent_settings import RecentSettings, SettingsSource
from agent.coordination.settings_watch import SettingsWatch
from agent.coordination.storage_checks import StorageChecks
from agent.coordination.wakeup import Waiter, Wakeup, feed
from agent.errors import (
    StorageUnavailable,
    TidelogError,
    Transient,
    leaves,
    root_cause,
)
from agent.log import EventSink
from agent.mongo.clients import APP_NAME
from agent.mongo.node import Node
from agent.notify.assembly import notifier
from agent.operations.balancing import BalancerKeeper
from agent.operations.context import Services
from agent.operations.governor import Governor
from agent.operations.key_watch import LOOK_EVERY_S, KeyWatch
from agent.operations.registry import all_kinds
from agent.operations.restore.leftovers import LeftoverKeeper
from agent.operations.runner import Runner
from agent.operations.scheduler import Scheduler
from agent.operations.scratch.place import Place
from agent.operations.slicer import Slicer
from agent.operations.storage_looks import check_storage, report_on
from agent.operations.vaults import with_keys
from agent.storage.base import Storage
from agent.storage.limiting import TokenBucket
from agent.storage.observing import StorageCounters
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.surroundings import Surroundings
from agent.store.balancer import Balancer
from agent.store.catalog import Catalog
from agent.store.cluster import ClusterView
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, open_control
from agent.store.encryption_store import EncryptionStore
from agent.store.events import EventLog
from agent.store.lease_store import LeaseStore
from agent.store.limits_store import LimitsStore
from agent.store.node_registry import NodeRegistry
from agent.store.operation_log import OperationLog
from agent.store.overview_reading import ControlSources
from agent.store.repositories import RepositoryStore
from agent.store.schedule_store import ScheduleStore
from agent.store.schema import ensure_schema
from agent.store.settings_store import SettingsStore
from agent.store.slice_runs import SliceRuns
from agent.tasks import TaskGroup
from agent.version import VERSION
from agent.web.assembly import web_server
from agent.wire.operations import EXPORTS, SCRATCH, Kind
from agent.wire.profiles import storage_of
from agent.wire.settings import Settings
from agent.wire.storage_reports import FEATURE, StorageCheckRequest, StorageReport

CHECK_POLL_S: Final = 30.0
ASIDE_AGAIN_S: Final = 30.0
IDLE_POLL_S: Final = 0.05
FLUSH_WITHIN_S: Final = 1.0

T = TypeVar("T")
log = structlog.stdlib.get_logger()


class ShuttingDown(Exception):  # no error: how the group learns that it should end
    """The agent was asked to stop."""


@dataclass(frozen=True, slots=True)
class Signals:
    """What the process is asked for from outside."""

    stop: asyncio.Event


async def run(config: Config, signals: Signals, sink: EventSink) -> None:
    """Serve the node until asked to stop. Raises `ConfigError`, `Refused` (a second agent),
    `StoreUnavailable` or `NodeUnavailable` (beyond the deadline)."""
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        within_s = config.mongodb.deadline
        node = await _reached(lambda: Node.open(config.uri()), clock, within_s)
        stack.push_async_callback(node.aclose)
        structlog.contextvars.bind_contextvars(node=node.id, replset=node.replset)
        control = await _reached(
            lambda: open_control(config.uri(), app_name=APP_NAME), clock, within_s
        )
        stack.push_async_callback(control.aclose)
        await _reached(lambda: ensure_schema(control), clock, within_s)
        scratch = Place(config.verify.scratch_dir, config.verify.mongod)
        await asyncio.to_thread(scratch.sweep)
        agent = await _assemble(config, node, control, clock, sink, scratch)
        await agent.serve(signals, sink, EventLog(control, clock), config.stop.grace)


async def _reached(call: Callable[[], Awaitable[T]], clock: Clock, within_s: float) -> T:
    """Try until the database answers: at boot it may be slower than we are."""
    end = clock.monotonic() + within_s
    while True:
        try:
            return await call()
        except Transient as error:
            if clock.monotonic() >= end:
                raise
            log.warning("control.unreachable", error=str(error))
        await clock.sleep(jittered(1.0))


async def _assemble(
    config: Config, node: Node, control: Control, clock: Clock, sink: EventSink, scratch: Place
) -> Agent:
    counters: dict[str, StorageCounters] = defaultdict(StorageCounters)
    commands = CommandQueue(control, clock)
    encryption = EncryptionStore(control)
    cluster_id = await _reached(control.read_cluster_id, clock, config.mongodb.deadline)
    services = _services(config, node, control, clock, cluster_id, encryption, counters)
    kinds = all_kinds(scratch, config.export.directory)
    condition = Condition(features=_features(kinds, config, scratch))
    heartbeat = Heartbeat(
        node,
        services.nodes,
        services.leases,
        services.holder,
        clock,
        condition,
        config.mongodb.deadline,
    )
    wakeup = Wakeup()
    settings = RecentSettings(services.settings, clock)
    runner = Runner(services, kinds, commands, wakeup, lead_replset=control.replset)
    settings_wakeup = Wakeup(poll_s=CHECK_POLL_S, operations=False)
    limits_wakeup = Wakeup(poll_s=CHECK_POLL_S, operations=False)
    slicer_wakeup = Wakeup(poll_s=CHECK_POLL_S, operations=False)
    keys_wakeup = Wakeup(poll_s=LOOK_EVERY_S, operations=False)
    settings_watch = SettingsWatch(
        settings,
        node.host,
        condition,
        lambda settings, profile: _told(
            lambda: check_storage(services, settings, profile, counters[profile])
        ),
        settings_wakeup,
        clock,
    )
    return Agent(
        heartbeat=heartbeat,
        commands=commands,
        runner=runner,
        slicer=Slicer(services, settings, runner.board, commands, slicer_wakeup),
        keepers=(BalancerKeeper(services, clock), LeftoverKeeper(services, runner.board)),
        membership=Membership(node, clock),
        key_watch=KeyWatch(services, settings, encryption, condition, keys_wakeup),
        scheduler=Scheduler(services, settings, lead_replset=control.replset),
        wakeups=(settings, wakeup, settings_wakeup, limits_wakeup, slicer_wakeup, keys_wakeup),
        storage_checks=StorageChecks(
            node.id,
            condition,
            partial(_looked_at, services, settings_watch),
            partial(_seconds_of, control),
            clock,
        ),
        settings_watch=settings_watch,
        asides=[
            partial(services.governor.watch, LimitsStore(control), limits_wakeup),
            *_asides(config, services, settings, control, heartbeat, counters, sink),
        ],
        clock=clock,
    )


def _features(kinds: Iterable[Kind], config: Config, scratch: Place) -> tuple[str, ...]:
    """What this agent can do, for those that choose one."""
    abilities = [SCRATCH] if scratch.is_usable() else []
    if scratch.is_usable() and config.export.directory is not None:
        abilities.append(EXPORTS)
    return tuple(sorted([*(f"kind:{kind}" for kind in kinds), FEATURE, *abilities]))


def _services(
    config: Config,
    node: Node,
    control: Control,
    clock: Clock,
    cluster_id: str,
    encryption: EncryptionStore,
    counters: Mapping[str, StorageCounters],
) -> Services:
    commands = CommandQueue(control, clock)
    governor = Governor(clock, node.lag_s)
    custody = _custody(node, control, clock, encryption)
    leases = LeaseStore(control, clock)
    opening = partial(_open_storage, node.host, governor.network, counters)
    return Services(
        node=node,
        cluster_id=cluster_id,
        operations=OperationLog(control, commands),
        catalog=Catalog(control),
        runs=SliceRuns(control),
        leases=leases,
        holder=Holder(leases, clock),
        nodes=NodeRegistry(control, commands),
        settings=SettingsStore(control, commands),
        cluster=ClusterView(control),
        balancer=Balancer(control),
        repositories=RepositoryStore(control),
        governor=governor,
        schedule=ScheduleStore(control),
        open_storage=with_keys(opening, custody),
        clock=clock,
        budget_bytes=config.memory.budget,
    )


@dataclass(frozen=True, slots=True)
class Agent:
    """Everything that runs."""

    heartbeat: Heartbeat
    commands: CommandQueue
    runner: Runner
    slicer: Slicer
    keepers: tuple[BalancerKeeper, LeftoverKeeper]
    membership: Membership
    key_watch: KeyWatch
    scheduler: Scheduler
    wakeups: tuple[Waiter, ...]
    settings_watch: SettingsWatch
    storage_checks: StorageChecks
    asides: list[Callable[[], Awaitable[None]]]
    """What must not harm the rest, whatever happens to it."""
    clock: Clock

    async def serve(
        self, signals: Signals, sink: EventSink, events: EventLog, grace_s: float
    ) -> None:
        """Run until asked to stop, or until something ends the agent."""
        lease = await self.heartbeat.claim()
        try:
            async with TaskGroup() as group:
                group.create_task(self.heartbeat.run(lease), name="heartbeat")
                checks = self.storage_checks
                fed = feed(self.commands, *self.wakeups, offer=checks.offer)
                group.create_task(fed, name="feed")
                group.create_task(checks.run(), name="storage checks")
                group.create_task(self.settings_watch.run(), name="settings watch")
                group.create_task(self.runner.run(), name="runner")
                group.create_task(self.slicer.run(), name="slicer")
                for keeper in self.keepers:
                    group.create_task(keeper.run(), name=type(keeper).__name__)
                group.create_task(self.membership.run(), name="membership")
                group.create_task(self.key_watch.run(), name="key watch")
                for call in self.asides:
                    group.create_task(_aside(call, self.clock), name=_name(call))
                group.create_task(self.scheduler.run(), name="scheduler")
                group.create_task(sink.run(events.write), name="events")
                group.create_task(_watchdog(self.clock), name="watchdog")
                group.create_task(self._stop(signals, grace_s), name="stop listener")
                systemd.notify("READY=1")
                log.info("agent.started", version=VERSION)
        except BaseExceptionGroup as errors:
            if not any(isinstance(leaf, ShuttingDown) for leaf in leaves(errors)):
                cause = root_cause(errors)
                raise cause from cause.__cause__
        finally:
            await self.heartbeat.goodbye()
            log.info("agent.stopped")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_WITHIN_S):
                    await sink.flush(events.write)

    async def _stop(self, signals: Signals, grace_s: float) -> None:
        await signals.stop.wait()
        systemd.notify("STOPPING=1")
        log.info("agent.stopping")
        self.runner.drain()
        end = self.clock.monotonic() + grace_s
        while not self.runner.is_idle and self.clock.monotonic() < end:
            await self.clock.sleep(IDLE_POLL_S)
        raise ShuttingDown


async def _server_time(control: Control) -> datetime:
    return (await control.now()).wall()


def _custody(node: Node, control: Control, clock: Clock, witnesses: EncryptionStore) -> Custody:
    return Custody(
        surroundings=Surroundings(node=node.host, clock=clock),
        clock=clock,
        now=partial(_server_time, control),
        witnesses=witnesses,
    )


def _asides(
    config: Config,
    services: Services,
    settings: SettingsSource,
    control: Control,
    heartbeat: Heartbeat,
    counters: Mapping[str, StorageCounters],
    sink: EventSink,
) -> list[Callable[[], Awaitable[None]]]:
    """What is served and told; the rest does not know of it."""
    node, cluster_id, clock = services.node, services.cluster_id, services.clock
    sources = ControlSources.over(control)
    server = web_server(config, node, cluster_id, sources, heartbeat, counters, sink, clock)
    teller = notifier(node.id, cluster_id, sources, settings, services.holder, clock)
    return [teller.run, *([server.run] if server is not None else [])]


async def _aside(call: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Run what backups do not depend on; a fault of it is told, and it begins anew."""
    while True:
        try:
            await call()
        except Exception as error:
            log.exception("aside.failed", task=_name(call), error=str(error))
        await clock.sleep(ASIDE_AGAIN_S)


def _name(call: Callable[[], Awaitable[None]]) -> str:
    return getattr(call, "func", call).__qualname__


async def _watchdog(clock: Clock) -> None:
    """As long as this runs, the event loop turns."""
    period_s = systemd.watchdog_period_s()
    while period_s is not None:
        systemd.notify("WATCHDOG=1")
        await clock.sleep(period_s)


async def _told(look: Callable[[], Awaitable[T]]) -> T:
    """A look at the storage. Raises `TidelogError`, also for what a driver's library should have
    said otherwise: settings that do not work must not end the agent."""
    try:
        return await look()
    except TidelogError:
        raise
    except Exception as error:
        raise StorageUnavailable(
            f"the storage check failed: {type(error).__name__}: {error}"
        ) from error


async def _looked_at(
    services: Services, watch: SettingsWatch, request: StorageCheckRequest
) -> StorageReport:
    """What was asked for; where it is news, status and elections are soon told of it, too."""
    report = await _told(lambda: report_on(services, request))
    if (report.error is None) != (watch.known(request.profile) is None):
        watch.look_again()
    return report


async def _seconds_of(control: Control) -> int:
    return (await control.now()).T


async def _open_storage(
    node: str,
    bucket: TokenBucket,
    counters: Mapping[str, StorageCounters],
    settings: Settings,
    profile: str,
) -> Storage:
    options = StorageOptions(node=node, bucket=bucket, counters=counters[profile])
    return await open_storage(storage_of(settings, profile), options)
