"""Several agents in this process, on one real control database, with a kind that tests script.

An agent here is a runner with its own connection and a node that is only said to be. It can be
killed (nothing it does reaches the database any more, its leases lapse at once), frozen (the same,
but it lives on and wakes up later) and stopped in good order.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from agent.clock import SystemClock
from agent.coordination.lease import Holder
from agent.coordination.wakeup import Wakeup, feed
from agent.errors import StoreUnavailable
from agent.mongo.node import Node
from agent.operations.context import LeadContext, OperationKind, PartContext, Services
from agent.operations.runner import Runner
from agent.store.balancer import Balancer
from agent.store.catalog import Catalog
from agent.store.cluster import ClusterView
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, open_control
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.store.operation_log import OperationLog
from agent.store.repositories import RepositoryStore
from agent.store.schedule_store import ScheduleStore
from agent.store.schema import ensure_schema
from agent.store.settings_store import SettingsStore
from agent.store.slice_runs import SliceRuns
from agent.wire.collections import LEASES
from agent.wire.nodes import NodeStatus, Role
from agent.wire.operations import Kind, Operation, State
from tests.support.eventually import eventually_async
from tests.support.governing import ungoverned
from tests.support.mongod import ReplicaSet

BEAT_EVERY_S = 1.0


@dataclass
class FakeNode:
    """A node that says what the test wants."""

    host: str
    replset: str = "one"
    role: Role = Role.SECONDARY
    mongodb_version: str = "6.0.5"

    @property
    def id(self) -> str:
        return f"{self.replset}/{self.host}"

    async def status(self) -> tuple[Role, float, str]:
        return self.role, 0.0, self.mongodb_version


@dataclass
class Script:
    """What a kind does, for all agents: which replica sets, what to wait for, what to raise."""

    replsets: list[str] = field(default_factory=lambda: ["one"])
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    """`(moment, host, epoch)`."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    errors: dict[str, list[Exception]] = field(default_factory=dict)
    on: dict[str, Callable[[Any], Any]] = field(default_factory=dict)

    def moments(self, moment: str) -> list[tuple[str, int]]:
        return [(host, epoch) for what, host, epoch in self.calls if what == moment]

    def gate(self, moment: str) -> asyncio.Event:
        """Whoever comes to that moment waits until the event is set."""
        return self.gates.setdefault(moment, asyncio.Event())

    async def reach(self, moment: str, times: int = 1) -> None:
        """Wait until somebody has come to a moment."""

        async def reached() -> bool:
            return len(self.moments(moment)) >= times

        await eventually_async(reached, within_s=20.0, every_s=0.01)

    async def play(self, moment: str, context: LeadContext | PartContext) -> None:
        self.calls.append((moment, context.services.node.host, context.lease.epoch))
        if errors := self.errors.get(moment):
            raise errors.pop(0)
        if moment in self.on:
            await self.on[moment](context)
        if gate := self.gates.get(moment):
            await gate.wait()


@dataclass
class ScriptedKind:
    """See `agent.operations.context.OperationKind`."""

    kind: Kind
    script: Script

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        await self.script.play("choose", lead)
        return self.script.replsets

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        await self.script.play("advance", lead)

    async def work(self, part: PartContext) -> dict[str, Any]:
        await self.script.play("work", part)
        return {"worked": part.services.node.host}

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        await self.script.play("finish", lead)
        return {"finished": lead.services.node.host}


class Severable:
    """A repository whose connection can be cut."""

    def __init__(self, repository: object, line: Line) -> None:
        self._repository = repository
        self._line = line

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._repository, name)

        @functools.wraps(method)
        async def call(*arguments: Any, **named: Any) -> Any:
            if self._line.is_cut:
                raise StoreUnavailable("the connection is cut")
            return await method(*arguments, **named)

        return call


@dataclass
class Line:
    is_cut: bool = False


class FleetAgent:
    """One agent."""

    def __init__(self, fleet: Fleet, node: FakeNode, control: Control) -> None:
        self.node = node
        self.line = Line()
        self._control = control
        self._registry = NodeRegistry(control)
        commands = CommandQueue(control)
        self._commands = commands

        def severable(repository: object) -> Any:
            return Severable(repository, self.line)

        leases = cast(LeaseStore, severable(LeaseStore(control)))
        self.services = Services(
            node=cast(Node, node),
            cluster_id="c",
            operations=cast(OperationLog, severable(OperationLog(control, commands))),
            catalog=Catalog(control),
            runs=SliceRuns(control),
            leases=leases,
            holder=Holder(leases, SystemClock()),
            nodes=cast(NodeRegistry, severable(self._registry)),
            settings=cast(SettingsStore, severable(SettingsStore(control))),
            cluster=ClusterView(control),
            balancer=Balancer(control),
            repositories=RepositoryStore(control),
            governor=ungoverned(),
            schedule=ScheduleStore(control),
            open_storage=cast(Any, None),
            clock=SystemClock(),
            budget_bytes=1 << 20,
        )
        self.wakeup = Wakeup()
        self.runner = Runner(
            self.services, fleet.kinds, commands, self.wakeup, lead_replset=fleet.lead_replset
        )
        self._task: asyncio.Task[None] | None = None

    async def beat(self) -> None:
        await self._registry.heartbeat(
            NodeStatus(
                id=self.node.id,
                replset=self.node.replset,
                host=self.node.host,
                role=self.node.role,
                agent_version="1",
                mongodb_version="6.0.5",
            )
        )

    async def start(self, group: asyncio.TaskGroup) -> None:
        await self.beat()
        self._task = group.create_task(self._run(), name=self.node.id)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(feed(self._commands, self.wakeup))
            group.create_task(self._beat_on())
            await self.runner.run()

    async def _beat_on(self) -> None:
        while True:
            if not self.line.is_cut:
                await self.beat()
            await asyncio.sleep(BEAT_EVERY_S)

    async def stop(self) -> None:
        """In good order, as on SIGTERM."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._registry.say_goodbye(self.node.id)

    async def kill(self, replset: ReplicaSet) -> None:
        """As by SIGKILL, with its leases lapsed."""
        self.line.is_cut = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.lapse(replset)
        await self._commands.wake("lapsed")

    async def freeze(self, replset: ReplicaSet) -> None:
        """As by SIGSTOP past its leases: it lives, but nothing of it reaches the database."""
        self.line.is_cut = True
        self.lapse(replset)
        await self._commands.wake("lapsed")

    def thaw(self) -> None:
        self.line.is_cut = False

    def lapse(self, replset: ReplicaSet) -> None:
        replset.client().admin[LEASES].update_many(
            {"owner": self.node.id}, [{"$set": {"expires_at": {"$subtract": ["$$NOW", 1]}}}]
        )

    async def aclose(self) -> None:
        if self._task is not None:
            # Its client must not be closed under it: it may be in the middle of a heartbeat.
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._control.aclose()


class Fleet:
    """The agents of one test. A context manager."""

    def __init__(self, replset: ReplicaSet, *, kind: Kind = Kind.BACKUP) -> None:
        self.replset = replset
        self.lead_replset = "one"
        self.script = Script()
        self.kinds: dict[Kind, OperationKind] = {kind: ScriptedKind(kind, self.script)}
        self.agents: list[FleetAgent] = []
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Fleet:
        self.control = await open_control(self.replset.uri(), app_name="tests")
        await ensure_schema(self.control)
        self.operations = OperationLog(self.control)
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        for agent in self.agents:
            agent.thaw()
            await agent.aclose()
        await self._group.__aexit__(None, None, None)
        await self.control.aclose()

    async def start(self, *nodes: FakeNode) -> list[FleetAgent]:
        """Start an agent beside each node."""
        started = []
        for node in nodes:
            control = await open_control(self.replset.uri(), app_name="tests")
            agent = FleetAgent(self, node, control)
            self.agents.append(agent)
            started.append(agent)
            await agent.start(self._group)
        return started

    def agent(self, host: str) -> FleetAgent:
        return next(agent for agent in self.agents if agent.node.host == host)

    async def submit(self, kind: Kind = Kind.BACKUP, **given: Any) -> Operation:
        return await self.operations.submit(kind, {}, requested_by="test", **given)

    async def state(self, op: Operation, *states: State, within_s: float = 60.0) -> Operation:
        """Wait until the operation is in one of these states."""

        async def there() -> Operation | None:
            now = await self.operations.get(op.id)
            assert now.state in states or not now.state.is_terminal, now
            return now if now.state in states else None

        found = await eventually_async(there, within_s, every_s=0.02, retry_on=())
        assert found is not None
        return found

    async def over(self, op: Operation, within_s: float = 60.0) -> Operation:
        """Wait until the operation is over, however."""
        return await self.state(op, State.DONE, State.FAILED, State.CANCELLED, within_s=within_s)
