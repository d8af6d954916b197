"""A cluster that is only said to be: the repositories that commands talk to, in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from agent.errors import Conflict, NotFound, TidelogError
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.encryption import Witness
from agent.wire.events import Event, EventFilter
from agent.wire.leases import Lease
from agent.wire.nodes import NodeStatus, Role
from agent.wire.operations import ErrorRecord, Kind, Operation, Part, Progress, State
from agent.wire.optime import OpTime
from agent.wire.repositories import Repositories
from agent.wire.schedule_state import ScheduleState
from agent.wire.settings import Settings, load_yaml
from agent.wire.storage_reports import FEATURE, Permission, StorageCheckRequest, StorageReport
from agent.wire.timelines import Gap, Run
from agent.wire.topology import Topology, unsharded
from ctl.__main__ import run
from ctl.invocation import Invocation
from ctl.session import Session
from tests.support.ctl_schema import check_printed

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
STORAGE = load_yaml("storage: {type: filesystem, filesystem: {path: /backups}}")
LEAD = Lease(id="lead/exclusive", owner="rs0/h1:27017", epoch=1, expires_at=NOW)


class FakeClock:
    """Goes on only while somebody sleeps; `on_sleep` is what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.on_sleep: Callable[[float], None] = lambda _: None

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep(self.now - 1000.0)


@dataclass
class World:
    """Everything that the repositories answer. `unreachable` is raised by every one of them."""

    settings: Settings = STORAGE
    version: int = 1
    nodes: list[NodeStatus] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    backups: list[Backup] = field(default_factory=list)
    restores: list[dict[str, Any]] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=lambda: [LEAD])
    slice_runs: list[Run] = field(default_factory=list)
    permissions: tuple[Permission, ...] = ()
    troubles: dict[str, str] = field(default_factory=dict)
    repositories: Repositories = field(default_factory=Repositories)
    slice_gaps: list[Gap] = field(default_factory=list)
    schedule: ScheduleState = field(default_factory=lambda: ScheduleState(now=NOW))
    events: list[Event] = field(default_factory=list)
    databases: dict[str, int] = field(default_factory=dict)
    hello: dict[str, Any] = field(default_factory=dict)
    topology: Topology = field(default_factory=lambda: unsharded("rs0"))
    clock: FakeClock = field(default_factory=FakeClock)
    unreachable: TidelogError | None = None
    cancelled: list[str] = field(default_factory=list)
    filters: list[EventFilter] = field(default_factory=list)
    wakes: int = 0
    witnesses: list[Witness] = field(default_factory=list)

    def becomes(self, after_s: float, **changes: Any) -> None:
        """The newest operation changes after so many seconds of waiting; with earlier ones kept."""
        before = self.clock.on_sleep

        def change(elapsed: float) -> None:
            before(elapsed)
            if elapsed >= after_s:
                self.operations[-1] = self.operations[-1].model_copy(update=changes)

        self.clock.on_sleep = change


@dataclass
class _Repositories:
    """One object that plays them all."""

    world: World
    replset: str = "rs0"
    hosts: str = "rs0/h1:27017,h2:27017"

    def _check(self) -> None:
        if self.world.unreachable is not None:
            raise self.world.unreachable

    async def now(self) -> OpTime:
        return OpTime(T=int(NOW.timestamp()), I=1)

    async def all(self) -> list[NodeStatus]:
        self._check()
        return self.world.nodes

    async def live(self) -> list[NodeStatus]:
        return [node for node in await self.all() if node.is_live]

    async def held(self) -> dict[str, Lease]:
        return {lease.id: lease for lease in self.world.leases}

    async def runs(self) -> list[Run]:
        return self.world.slice_runs

    async def troubles(self) -> dict[str, str]:
        return self.world.troubles

    async def read_cluster_id(self) -> str:
        return "cluster"

    async def gaps(self) -> list[Gap]:
        return self.world.slice_gaps

    async def ask(self, request: StorageCheckRequest) -> None:
        """Each live agent answers what it knows of the storage, unless it is to keep silent."""
        self._check()
        for number, one in enumerate(self.world.nodes):
            if FEATURE not in one.features:
                continue
            report = StorageReport(
                id=request.id,
                node=one.id,
                profile=request.profile,
                type="filesystem",
                address="file:///backups",
                error=one.storage_error,
                permissions=self.world.permissions,
            )
            self.world.nodes[number] = one.model_copy(update={"reports": (report,)})

    async def wake(self) -> None:
        self.world.wakes += 1


class _Operations(_Repositories):
    async def submit(
        self, kind: Kind, spec: dict[str, Any], *, requested_by: str, queue: bool = False
    ) -> Operation:
        busy = [op for op in await self.active() if op.kind.is_exclusive]
        if kind.is_exclusive and busy and not queue:
            raise Conflict(f"another operation in progress: backup x ({busy[0].id})")
        number = len(self.world.operations) + 1
        made = operation(
            kind,
            f"2026-03-01T12:00:{number:02d}Z",
            id=f"{number:024x}",
            spec=spec,
            queued=bool(busy) and queue,
            requested_by=requested_by,
        )
        self.world.operations.append(made)
        return made

    async def get(self, op_id: str) -> Operation:
        self._check()
        return next(op for op in self.world.operations if op.id == op_id)

    async def find(self, name: str, kind: Kind) -> Operation | None:
        found = [op for op in self.world.operations if (op.name, op.kind) == (name, kind)]
        return found[0] if found else None

    async def active(self) -> list[Operation]:
        self._check()
        return [op for op in self.world.operations if not op.state.is_terminal]

    async def recent(self, limit: int = 100) -> list[Operation]:
        return self.world.operations[::-1][:limit]

    async def request_cancel(self, op_id: str) -> Operation:
        self.world.cancelled.append(op_id)
        return await self.get(op_id)


class _Catalog(_Repositories):
    async def backups(self) -> list[Backup]:
        self._check()
        return self.world.backups

    async def backup(self, name: str) -> Backup:
        for found in await self.backups():
            if found.id == name:
                return found
        raise NotFound(f"there is no backup {name}")

    async def restores(self) -> list[dict[str, Any]]:
        return self.world.restores


class _Settings(_Repositories):
    async def read(self) -> tuple[Settings, int]:
        self._check()
        return self.world.settings, self.world.version

    async def replace(self, settings: Settings, version: int) -> int:
        if version != self.world.version:
            raise Conflict("the settings were changed by somebody else meanwhile")
        self.world.settings, self.world.version = settings, version + 1
        return version + 1


class _Places(_Repositories):
    async def read(self) -> Repositories:
        self._check()
        return self.world.repositories


class _Schedule(_Repositories):
    async def read(self) -> ScheduleState:
        return self.world.schedule


class _Events(_Repositories):
    async def tail(self, chosen: EventFilter, limit: int) -> list[Event]:
        self.world.filters.append(chosen)
        return self.world.events[-limit:]

    async def follow(self, chosen: EventFilter) -> AsyncIterator[Event]:
        for event in self.world.events:
            yield event
        raise KeyboardInterrupt


class _Encryption:
    def __init__(self, world: World) -> None:
        self._world = world

    async def all(self) -> list[Witness]:
        return self._world.witnesses


class _FakeSession(Session):
    async def databases(self) -> dict[str, int]:
        return _world_of(self).databases

    async def hello(self) -> dict[str, Any]:
        return _world_of(self).hello

    async def topology(self) -> Topology:
        return _world_of(self).topology


def _world_of(session: Session) -> World:
    return cast(_Repositories, session.control).world


@asynccontextmanager
async def open_fake(world: World, invocation: Invocation) -> AsyncIterator[Session]:
    """A session on a world."""
    one: Any = _Repositories(world)
    yield _FakeSession(
        invocation=invocation,
        control=one,
        operations=cast(Any, _Operations(world)),
        nodes=one,
        catalog=cast(Any, _Catalog(world)),
        settings=cast(Any, _Settings(world)),
        repositories=cast(Any, _Places(world)),
        leases=one,
        runs=one,
        schedule=cast(Any, _Schedule(world)),
        events=cast(Any, _Events(world)),
        commands=one,
        encryption=cast(Any, _Encryption(world)),
        limits=one,
        clock=world.clock,
    )


@dataclass(frozen=True)
class Outcome:
    """What a call of `ctl` left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


class Ctl:
    """Calls `ctl` on a world, in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.world = World(nodes=[node()])
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        invocation = Invocation(connect=lambda inv: open_fake(self.world, inv))
        code = run(arguments, invocation)
        captured = self._capsys.readouterr()
        check_printed(arguments, captured.out)
        return Outcome(code, captured.out, captured.err)


def node(host: str = "h1:27017", **changes: Any) -> NodeStatus:
    """An agent that is well."""
    replset = changes.pop("replset", "rs0")
    facts: dict[str, Any] = {
        "_id": f"{replset}/{host}",
        "replset": replset,
        "host": host,
        "role": Role.SECONDARY,
        "agent_version": "0.1.0",
        "mongodb_version": "6.0.5",
        "storage_settings_version": 1,
        "features": (FEATURE,),
        "age_s": 1.0,
    }
    return NodeStatus.model_validate({**facts, **changes})


def operation(
    kind: Kind = Kind.BACKUP, name: str = "2026-03-01T11:00:00Z", **changes: Any
) -> Operation:
    """One that was just requested."""
    facts: dict[str, Any] = {
        "_id": changes.pop("id", "a" * 24),
        "kind": kind,
        "name": name,
        "requested_at": NOW,
        "requested_by": "me@here",
    }
    return Operation.model_validate({**facts, **changes})


def part(replset: str = "rs0", **changes: Any) -> Part:
    """A share that runs."""
    facts: dict[str, Any] = {
        "replset": replset,
        "state": State.RUNNING,
        "node": f"{replset}/h1:27017",
        "progress": Progress(
            stage="reading",
            bytes_done=512 << 20,
            bytes_total=1 << 30,
            documents_done=1_000_000,
            documents_total=2_000_000,
        ),
    }
    return Part.model_validate({**facts, **changes})


def backup(name: str = "2026-02-28T10:00:00Z", **changes: Any) -> Backup:
    """A published one of 12 MiB; its last write is the second of its name."""
    seconds = int(datetime.strptime(name, "%Y-%m-%dT%H:%M:%S%z").timestamp())
    share = ReplsetPart(
        replset="rs0",
        manifest_key="backups/x/rs0/manifest-1.json.zst",
        manifest_sha256="0" * 64,
        manifest_size_bytes=100,
        node="rs0/h1:27017",
        first_write=OpTime(T=seconds - 9, I=1),
        read_end=OpTime(T=seconds, I=2),
        collections=3,
        documents=1234,
        objects=5,
        size_bytes=12 << 20,
        size_uncompressed_bytes=40 << 20,
    )
    facts: dict[str, Any] = {
        "_id": name,
        "op_id": "b" * 24,
        "format_version": 1,
        "repository_id": "repo",
        "cluster_id": "cluster",
        "mongodb_version": "6.0.5",
        "fcv": "6.0",
        "tidelog_version": "0.1.0",
        "first_write": OpTime(T=seconds - 9, I=1),
        "last_write": OpTime(T=seconds, I=3),
        "started_at": datetime.fromtimestamp(seconds, UTC) - timedelta(seconds=10),
        "compression": "zstd",
        "replsets": (share,),
        "size_bytes": 12 << 20,
        "size_uncompressed_bytes": 40 << 20,
    }
    return Backup.model_validate({**facts, **changes})


def failure(
    kind: str = "StorageFull", message: str = "no space left", hint: str = ""
) -> ErrorRecord:
    """Why an operation failed."""
    return ErrorRecord(type=kind, message=message, hint=hint, node="rs0/h1:27017")


__all__ = [
    "NOW",
    "STORAGE",
    "Ctl",
    "Outcome",
    "World",
    "backup",
    "failure",
    "node",
    "open_fake",
    "operation",
    "part",
]
