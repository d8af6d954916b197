"""Makes the golden repository of the present format version, once: `tests/fixtures/golden-v1`.

    python -m tests.support.golden tests/fixtures/golden-v1

A real server's data, taken by the product's own backup, beside `expected.json`, which says by the
server's word what must be read from it. Never made anew for a version that was released: it stands
for what users have on their storage.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex
from bson.timestamp import Timestamp
from pymongo import MongoClient

from agent.archive.layout import restore_key
from agent.clock import SystemClock
from agent.errors import StorageUnavailable, root_cause
from agent.mongo.node import Node
from agent.operations.backup import planning, reading
from agent.operations.backup.kind import BackupKind
from agent.operations.restore.state import Stage, State
from agent.storage.base import Storage, put_bytes
from agent.storage.filesystem import FilesystemStorage
from agent.wire.operations import Kind, Operation, Part
from agent.wire.optime import OpTime
from agent.wire.settings import Settings, StorageSettings
from tests.support.documents import read_raw
from tests.support.faulty_storage import FaultyStorage
from tests.support.governing import ungoverned
from tests.support.mongod import ReplicaSet, SetOptions
from tests.support.snapshots import open_node
from tests.support.workload.runner import mark

Client = MongoClient[dict[str, Any]]
PUBLISHED: Final = "2026-11-22T03:08:36Z"
UNFINISHED: Final = "2026-11-22T04:00:00Z"
EXPECTED: Final = "expected.json"
_SHOWN: Final = 20


class Running:
    """One backup as the lead and the worker of its only replica set see it, without a control
    database: what they would write there is kept here."""

    def __init__(self, node: Node, name: str, op_id: str, storage: Callable[[], Any]) -> None:
        self.operation = Operation(
            id=op_id,
            kind=Kind.BACKUP,
            name=name,
            requested_at=datetime(2026, 11, 22, 3, 8, 36, tzinfo=UTC),
        )
        self.published: list[Any] = []
        self.choose_end: Callable[[], Timestamp] | None = None
        """Called once everything is read; answers `last_write`."""
        self._storage = storage
        self._services = SimpleNamespace(
            node=node,
            cluster_id=node.cluster_id,
            clock=SystemClock(),
            budget_bytes=256 << 20,
            governor=ungoverned(),
            open_storage=self._open_storage,
            catalog=SimpleNamespace(publish_backup=self._publish),
            repositories=SimpleNamespace(note=self._note),
        )

    async def run(self, epoch: int = 1) -> None:
        """From the choice of parts to publication."""
        kind = BackupKind()
        (replset,) = await kind.choose(self._context(epoch), self.operation)
        result = await kind.work(self._context(epoch, replset))
        self._update(parts=(Part(replset=replset, result=result),))
        await kind.finish(self._context(epoch), self.operation)

    def _context(self, epoch: int, replset: str = "") -> Any:
        return SimpleNamespace(
            services=self._services,
            settings=Settings(storage=StorageSettings(type="memory")),
            operation=self.operation,
            replset=replset,
            lease=SimpleNamespace(epoch=epoch, check=lambda: None),
            refresh=self._refresh,
            record=self._record,
            report=self._report,
        )

    def _update(self, **changes: Any) -> None:
        self.operation = self.operation.model_copy(update=changes)

    async def _open_storage(self, settings: Settings, profile: str) -> Storage:
        storage: Storage = await self._storage()
        return storage

    async def _publish(self, backup: Any) -> None:
        self.published.append(backup)

    async def _note(self, found: Any) -> None:
        """Nobody asks."""

    async def _refresh(self) -> Operation:
        return self.operation

    async def _record(self, fields: dict[str, Any], **_: Any) -> None:
        last_write = OpTime.from_document(fields["read_end"])
        if self.choose_end is not None:
            last_write = OpTime.of(await asyncio.to_thread(self.choose_end))
        self._update(result={"last_write": last_write.to_document()})

    async def _report(self, progress: Any) -> None:
        """Nobody looks."""


def fill(client: Client) -> None:
    """A little of everything, with `_id`s of many types in a collection of several ranges."""
    db = client["shop"]
    ids: list[Any] = [
        *(MinKey(), None, -1.5, 0, Int64(2**40), Decimal128("7.10"), float("inf"), "", "tide"),
        *({"a": 1, "b": [2]}, b"bytes", Binary(bytes(range(16)), 4), ObjectId("0" * 24), True),
        *(DatetimeMS(2**60), Timestamp(7, 8), Code("f()"), MaxKey()),
    ]
    db["mixed"].insert_many(
        [{"_id": one, "n": n, "re": Regex("^a", 2)} for n, one in enumerate(ids)]
    )
    db["large"].insert_many([{"_id": n, "text": f"{n:03d} " * 30} for n in range(600)])
    db["large"].create_index([("text", 1), ("n", -1)], name="text_n", sparse=True)
    validator = {"name": {"$regex": "^a", "$options": "i"}}
    db.create_collection("guarded", validator=validator, collation={"locale": "sv"})
    db["guarded"].insert_many([{"_id": word, "name": word} for word in ("apa", "aÄ", "Aö")])
    db.create_collection("clustered", clusteredIndex={"key": {"_id": 1}, "unique": True})
    db["clustered"].insert_many([{"_id": n} for n in range(5)])
    db.create_collection("ring", capped=True, size=65_536)
    db["ring"].insert_many([{"_id": n} for n in (3, 1, 2)])
    db.create_collection("seen", viewOn="large", pipeline=[{"$match": {"_id": {"$lt": 3}}}])
    db.create_collection("weather", timeseries={"timeField": "t", "metaField": "m"})
    db["weather"].insert_many(
        [{"t": datetime(2026, 11, 22, n, tzinfo=UTC), "m": n % 2, "v": n} for n in range(6)]
    )
    db.create_collection("empty")
    db.create_collection("odd name.ü")
    db["odd name.ü"].insert_one({"_id": "only"})


def write_in_the_span(client: Client) -> Timestamp:
    """What only the slices hold."""
    db = client["shop"]
    db["large"].update_one({"_id": 7}, {"$set": {"text": "changed in the span"}})
    db["large"].delete_one({"_id": 8})
    db["guarded"].rename("renamed")
    db["odd name.ü"].drop()
    with client.start_session() as session, session.start_transaction():
        db["clustered"].insert_one({"_id": 100}, session=session)
        db["clustered"].insert_one({"_id": 101}, session=session)
    return mark(client)


def expectation(client: Client) -> dict[str, Any]:
    """What the chunks must hold, by the server's word. Documents ascend by their bytes; the digest
    is of all, the first are given in base64."""
    found: dict[str, Any] = {}
    for entry in client["shop"].list_collections():
        if entry["type"] == "collection":
            documents = sorted(map(bytes, read_raw(client, "shop", entry["name"])))
            indexes: Any = []
            if entry["name"] != "system.views":
                listed = client["shop"].command({"listIndexes": entry["name"]})
                indexes = [spec["name"] for spec in listed["cursor"]["firstBatch"]]
            found[f"shop.{entry['name']}"] = {
                "uuid": bytes(entry["info"]["uuid"]).hex(),
                "count": len(documents),
                "sha256": hashlib.sha256(b"".join(documents)).hexdigest(),
                "documents": [base64.b64encode(one).decode() for one in documents[:_SHOWN]],
                "indexes": [name for name in indexes if entry["name"] != "clustered"],
            }
    return found


async def make(directory: Path) -> None:
    """Fill an empty directory with the repository and `expected.json`."""
    repository = directory / "repository"
    repository.mkdir(parents=True)
    # Little data, yet ranges.
    for module, name in ((reading, "CHUNK"), (planning, "CHUNK"), (reading, "SMALL")):
        setattr(module, f"{name}_BYTES", 16 << 10 if name == "CHUNK" else 8 << 10)

    async def opened() -> Storage:
        return await FilesystemStorage.open(repository)

    async def failing() -> Storage:
        faulty = FaultyStorage(await opened())
        faulty.fail("put", StorageUnavailable("cut short"), call=9)
        return faulty

    with ReplicaSet(SetOptions(name="rs0")) as replset:
        client = replset.client()
        fill(client)
        mark(client)
        expected = expectation(client)
        async with open_node(replset) as node:
            running = Running(node, PUBLISHED, "0123456789abcdef01234567", opened)
            running.choose_end = lambda: write_in_the_span(client)
            await running.run(epoch=3)
            unfinished = Running(node, UNFINISHED, "fedcba9876543210fedcba98", failing)
            try:
                await unfinished.run(epoch=4)
            except (StorageUnavailable, ExceptionGroup) as error:
                assert isinstance(root_cause(error), StorageUnavailable)  # noqa: PT017
    state = State(stage=Stage.LOADED, seconds={"wiped": 0.1, "loaded": 2.5}, applied=7, skipped=1)
    storage = await opened()
    record = state.model_dump_json(exclude_none=True).encode()
    await put_bytes(storage, restore_key("2026-11-22T05:00:00Z", "rs0", 9, 0), record)
    await storage.aclose()
    text = json.dumps(expected, indent=1, ensure_ascii=True)
    (directory / EXPECTED).write_text(text + "\n")


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
