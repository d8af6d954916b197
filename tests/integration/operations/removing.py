"""A repository in a directory and a control database, and one lead at work on a removal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog

from agent.archive.layout import MARKER
from agent.operations.context import LeadContext, OperationKind
from agent.operations.registry import all_kinds
from agent.operations.repository import Marker
from agent.operations.scratch.place import Place
from agent.storage.base import Storage, put_bytes
from agent.storage.filesystem import FilesystemStorage
from agent.store.catalog import Catalog
from agent.store.connection import open_control
from agent.store.operation_log import OperationLog
from agent.store.repositories import RepositoryStore
from agent.store.schedule_store import ScheduleStore
from agent.store.schema import ensure_schema
from agent.store.slice_runs import SliceRuns
from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation, State
from agent.wire.optime import OpTime
from agent.wire.record import Record
from agent.wire.settings import Settings, load_yaml
from agent.wire.timelines import Run
from tests.support.mongod import ReplicaSet
from tests.unit.operations.repositories import (
    REPLSET,
    make_chunk,
    make_slice,
    publish,
    write_journal,
)

CLUSTER, REPOSITORY = "c" * 24, "r" * 24
DAY_S = 86400
EPOCH = 7


def settings_of(path: Path, policy: str = "{}", *, pitr: bool = True) -> Settings:
    """Settings on a directory."""
    text = f"storage: {{type: filesystem, filesystem: {{path: {path}}}}}\npolicy: {policy}\n"
    return load_yaml(text + f"pitr: {{enabled: {str(pitr).lower()}}}\n")


@dataclass
class Bench:
    """What tests of removals work with."""

    storage: Storage
    path: Path
    operations: OperationLog
    catalog: Catalog
    runs: SliceRuns
    schedule: ScheduleStore
    repositories: RepositoryStore
    now: int
    """The server's time in seconds when the test began."""
    settings: Settings

    def lead(self) -> LeadContext:
        """Whoever leads now."""

        async def open_storage(settings: Settings, profile: str) -> Storage:
            return await FilesystemStorage.open(self.path)

        services = SimpleNamespace(
            node=SimpleNamespace(id="rs0/h1:27017"),
            cluster_id=CLUSTER,
            operations=self.operations,
            catalog=self.catalog,
            runs=self.runs,
            schedule=self.schedule,
            repositories=self.repositories,
            open_storage=open_storage,
        )
        lease = SimpleNamespace(check=lambda: None, epoch=EPOCH)
        return LeadContext(
            cast(Any, services), self.settings, cast(Any, lease), structlog.stdlib.get_logger()
        )

    async def ask(self, kind: Kind, spec: Record) -> Operation:
        """Have it written down, with a lead."""
        made = await self.operations.submit(kind, spec.to_document(), requested_by="test")
        return await self.operations.take_lead(made.id, "rs0/h1", EPOCH)

    async def lead_on(self, operation: Operation) -> dict[str, Any]:
        """One lead, to the end."""
        kind: OperationKind = all_kinds(Place())[operation.kind]
        now = await self.operations.get(operation.id)
        await kind.choose(self.lead(), now)
        result = await kind.finish(self.lead(), now)
        await self._end(operation.id, State.DONE)
        return result

    async def finish(self, operation: Operation) -> dict[str, Any]:
        """Publishing alone, as after a crash."""
        now = await self.operations.get(operation.id)
        return await all_kinds(Place())[operation.kind].finish(self.lead(), now)

    async def do(self, kind: Kind, spec: Record) -> dict[str, Any]:
        """Ask and carry out."""
        return await self.lead_on(await self.ask(kind, spec))

    async def end(self, operation: Operation, state: State, *, ago_s: float = 0) -> None:
        """An operation ends so, as long ago."""
        await self._end(operation.id, state, ago_s)

    async def _end(self, op_id: str, state: State, ago_s: float = 0) -> None:
        stamp = {"$subtract": ["$$NOW", int(ago_s * 1000)]}
        await self.operations._collection.update_one(
            {"_id": op_id},
            [{"$set": {"state": state.value, "finished_at": stamp}}, {"$unset": "slot"}],
        )

    async def back_up(
        self, name: str, at: int, *, slices: tuple[tuple[int, int], ...] = (), **more: Any
    ) -> Backup:
        """A published backup of two chunks, consistent at a moment."""
        op_id = name.ljust(24, "0")
        chunks = [await make_chunk(self.storage, op_id, n) for n in range(2)]
        own = [await make_slice(self.storage, *span) for span in slices]
        made = await publish(self.storage, name, op_id, chunks, own)
        # The document on the storage tells the time of the test repository; the catalogue decides.
        moment = {"first_write": OpTime(T=at - 5, I=1), "last_write": OpTime(T=at, I=1)}
        backup = made.model_copy(update={**moment, "cluster_id": CLUSTER, **more})
        await self.catalog.publish_backup(backup)
        return backup

    async def archive(self, start: int, end: int, every: int, *, sealed: bool = False) -> Run:
        """A run of slices."""
        refs = [
            await make_slice(self.storage, at, min(at + every, end))
            for at in range(start, end, every)
        ]
        run = Run(
            id=f"{REPLSET}/{refs[0].start.key}/1",
            replset=REPLSET,
            start=refs[0].start,
            end=refs[-1].end,
            covered_until=refs[-1].end,
            last_key=refs[-1].key,
            last_sha256=refs[-1].sha256,
            slices=len(refs),
            size_bytes=sum(ref.size_bytes for ref in refs),
            epoch=1,
            repository_id=REPOSITORY,
            sealed=sealed,
        )
        await self.runs.save(run)
        return run

    async def leave_behind(self, operation: Operation) -> None:
        """What a backup stores before it dies: one chunk noted, one not, and its slices."""
        noted = await make_chunk(self.storage, operation.id, 0)
        await make_chunk(self.storage, operation.id, 1)
        at = int(operation.requested_at.timestamp())
        slices = [await make_slice(self.storage, at, at + 1, op_id=operation.id)]
        await write_journal(self.storage, operation.name, 1, 0, [noted], slices)
        await make_slice(self.storage, at + 1, at + 2, op_id=operation.id)

    async def keys(self, prefix: str = "") -> list[str]:
        """All objects but the marker."""
        found = [item.key async for item in self.storage.list(prefix)]
        return [key for key in found if key != "tidelog.json"]

    def slice_ends(self, keys: list[str]) -> list[int]:
        """Ends of slices, relative to now."""
        return sorted(
            int(key.rpartition("/")[2].split("_")[1].split("-")[0]) - self.now
            for key in keys
            if key.startswith("slices/")
        )


@asynccontextmanager
async def open_bench(replset: ReplicaSet, path: Path) -> AsyncIterator[Bench]:
    """An empty repository."""
    control = await open_control(replset.uri(), app_name="tests")
    storage = await FilesystemStorage.open(path)
    try:
        await ensure_schema(control)
        marker = Marker(repository_id=REPOSITORY, cluster_id=CLUSTER)
        await put_bytes(storage, MARKER, marker.model_dump_json().encode())
        yield Bench(
            storage=storage,
            path=path,
            operations=OperationLog(control),
            catalog=Catalog(control),
            runs=SliceRuns(control),
            schedule=ScheduleStore(control),
            repositories=RepositoryStore(control),
            now=(await control.now()).T,
            settings=settings_of(path),
        )
    finally:
        await storage.aclose()
        await control.aclose()
