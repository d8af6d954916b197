"""An agent's part in the control database, played step by step: real documents, no agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent.store.catalog import Catalog
from agent.store.connection import Control, open_control
from agent.store.events import EventLog
from agent.store.lease_store import LeaseStore
from agent.store.node_registry import NodeRegistry
from agent.store.operation_log import OperationLog
from agent.store.schema import ensure_schema
from agent.wire.leases import Lease, lead_scope
from agent.wire.nodes import Role
from agent.wire.operations import ErrorRecord, Operation, Progress, State
from tests.support.eventually import eventually_async
from tests.unit.ctl.world import backup, node

MIB = 1 << 20


class Actor:
    """Says and does what an agent of this node would."""

    def __init__(self, control: Control, host: str) -> None:
        self.replset = control.replset
        self.host = host
        self.id = f"{control.replset}/{host}"
        self.operations = OperationLog(control)
        self.catalog = Catalog(control)
        self.events = EventLog(control)
        self._nodes = NodeRegistry(control)
        self._leases = LeaseStore(control)
        self._lease: Lease | None = None

    async def beat(self, *, storage_error: str | None = None, settings_version: int = 1) -> None:
        """A heartbeat."""
        status = node(
            self.host,
            replset=self.replset,
            role=Role.PRIMARY,
            storage_error=storage_error,
            storage_settings_version=settings_version,
            pid=1,
        )
        await self._nodes.heartbeat(status)

    async def leave(self) -> None:
        """Goodbye."""
        await self._nodes.say_goodbye(self.id)

    async def next_operation(self) -> Operation:
        """The operation that somebody asks for, within ten seconds."""
        (found, *_) = await eventually_async(self.operations.active)
        return found

    async def lead(self, operation: Operation, *, ttl_s: float = 60.0) -> Operation:
        """Lead it as far as running, working on its one part."""
        await self.beat()
        scope = lead_scope(operation.kind)
        self._lease = await self._leases.acquire(scope, self.id, ttl_s)
        assert self._lease is not None
        epoch, op_id = self._lease.epoch, operation.id
        await self.operations.take_lead(op_id, self.id, epoch)
        await self.operations.set_parts(op_id, epoch, [self.replset])
        await self._move(op_id, State.REQUESTED, State.ELECTING)
        await self.operations.take_part(op_id, self.replset, self.id, epoch)
        await self._move(op_id, State.ELECTING, State.PREPARING)
        await self.operations.update_part(op_id, self.replset, epoch, state=State.RUNNING)
        return await self._move(op_id, State.PREPARING, State.RUNNING)

    async def progress(self, op_id: str, done: int, total: int, stage: str = "reading") -> None:
        """Say how far it is, in MiB."""
        amounts = Progress(
            stage=stage, bytes_done=done * MIB, bytes_total=total * MIB, documents_done=done * 1000
        )
        await self.operations.update_part(op_id, self.replset, self._epoch, progress=amounts)

    async def publish(self, operation: Operation) -> Operation:
        """Complete a backup."""
        await self.operations.update_part(
            operation.id,
            self.replset,
            self._epoch,
            state=State.DONE,
            result={"collections": [{"ns": "shop.orders", "documents": 7}]},
        )
        await self._move(operation.id, State.RUNNING, State.PUBLISHING)
        await self.catalog.publish_backup(backup(operation.name, op_id=operation.id))
        done = await self._move(operation.id, State.PUBLISHING, State.DONE)
        await self._let_go()
        return done

    async def fail(self, operation: Operation, kind: str, message: str) -> None:
        """End it badly."""
        error = ErrorRecord(type=kind, message=message, node=self.id)
        now = await self.operations.get(operation.id)
        await self._move(operation.id, now.state, State.FAILED, error=error)
        await self._let_go()

    async def cancel(self, operation: Operation) -> None:
        """Obey a cancellation."""
        await self._move(operation.id, State.RUNNING, State.CANCELLED)

    async def _let_go(self) -> None:
        if self._lease is not None:
            await self._leases.release(self._lease)

    @property
    def _epoch(self) -> int:
        assert self._lease is not None
        return self._lease.epoch

    async def _move(
        self, op_id: str, before: State, after: State, error: ErrorRecord | None = None
    ) -> Operation:
        return await self.operations.transition(
            op_id, before, after, epoch=self._epoch, error=error
        )


@asynccontextmanager
async def open_actor(uri: str, host: str) -> AsyncIterator[Actor]:
    """An actor on the control database."""
    control = await open_control(uri, app_name="tests")
    try:
        await ensure_schema(control)
        yield Actor(control, host)
    finally:
        await control.aclose()
