"""No false success: a backup is published once, and only when every object it names is there."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from agent.archive.layout import MARKER, backup_key
from agent.errors import IntegrityError, PermissionDenied, UnsupportedVersion, root_cause
from agent.operations.backup.publication import forget_journals, prove_stored, publish_on
from agent.operations.inventory import read_backup, read_manifest
from agent.operations.resync import ResyncKind
from agent.storage.base import get_bytes, put_bytes
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.wire.backups import Backup
from agent.wire.operations import Kind, Operation
from agent.wire.optime import OpTime
from agent.wire.settings import Settings, StorageSettings
from tests.unit.operations.memory_runs import MemoryRuns
from tests.unit.operations.repositories import (
    backup_document,
    keys_of,
    make_chunk,
    make_slice,
    publish,
    write_journal,
    write_manifest,
)


async def _published(storage: MemoryStorage, name: str = "b", epoch: int = 1) -> Backup:
    chunks = [await make_chunk(storage, f"op-{name}", number) for number in range(40)]
    archived = await make_slice(storage, 10, 30, epoch)
    return await publish(storage, name, f"op-{name}", chunks, [archived])


async def test_a_backup_with_all_its_objects_is_proven() -> None:
    storage = await MemoryStorage.open()
    backup = await _published(storage)
    await prove_stored(storage, backup.replsets[0], backup.last_write)


async def _refusal(storage: MemoryStorage, backup: Backup) -> str:
    with pytest.raises((IntegrityError, ExceptionGroup)) as caught:
        await prove_stored(storage, backup.replsets[0], backup.last_write)
    cause = root_cause(caught.value)
    assert isinstance(cause, IntegrityError)
    return cause.message


async def test_a_part_that_ends_elsewhere_than_the_backup_stops_the_publication() -> None:
    backup = await _published(storage := await MemoryStorage.open())
    with pytest.raises(IntegrityError, match="is to end at"):
        await prove_stored(storage, backup.replsets[0], OpTime(T=10_000, I=1))


@pytest.mark.story("F1", "PBM-1538")
async def test_any_missing_object_is_named_and_stops_the_publication() -> None:
    backup = await _published(storage := await MemoryStorage.open())
    for key in [key for key in storage.objects.keys if key != backup_key("b")]:
        body = storage.objects.bodies[key]
        await storage.delete([key])
        assert f"{key} is missing from" in await _refusal(storage, backup)
        await put_bytes(storage, key, body)
    await prove_stored(storage, backup.replsets[0], backup.last_write)


@pytest.mark.story("F2", "PBM-1605")
async def test_an_object_of_another_size_is_named_and_stops_the_publication() -> None:
    backup = await _published(storage := await MemoryStorage.open())
    for key in [key for key in storage.objects.keys if "chunks/" in key or "slices/" in key]:
        body = storage.objects.bodies[key]
        storage.objects.bodies[key] = body[:-1]
        assert f"{key} on memory://memory has {len(body) - 1} bytes" in await _refusal(
            storage, backup
        )
        storage.objects.bodies[key] = body


async def test_a_manifest_of_another_digest_stops_the_publication() -> None:
    backup = await _published(storage := await MemoryStorage.open())
    key = backup.replsets[0].manifest_key
    other = await MemoryStorage.open()
    part = await write_manifest(other, "b", "op-other", [], [])
    storage.objects.bodies[key] = other.objects.bodies[part.manifest_key]
    assert f"{key} on memory://memory is not what was written" in await _refusal(storage, backup)


async def test_publishing_again_what_another_lead_published_is_success() -> None:
    storage = await MemoryStorage.open()
    backup = backup_document("b", "op")
    await publish_on(storage, backup)
    written = await get_bytes(storage, backup_key("b"))
    await publish_on(storage, backup)
    assert await get_bytes(storage, backup_key("b")) == written
    assert await read_backup(storage, "b") == backup


async def test_a_published_backup_is_never_replaced_by_another() -> None:
    storage = await MemoryStorage.open()
    await publish_on(storage, backup_document("b", "op1"))
    with pytest.raises(IntegrityError, match="another backup's"):
        await publish_on(storage, backup_document("b", "op2"))
    found = await read_backup(storage, "b")
    assert found is not None
    assert found.op_id == "op1"


async def test_a_published_backup_keeps_no_journal() -> None:
    storage = await MemoryStorage.open()
    await write_journal(storage, "b", 1, 0)
    await write_journal(storage, "b", 2, 0)
    backup = await _published(storage)
    kept = [key for key in storage.objects.keys if "/journal/" not in key]
    await forget_journals(storage, backup)
    assert await keys_of(storage) == kept


async def test_a_missing_or_senseless_manifest_is_named() -> None:
    storage = await MemoryStorage.open(name="vault")
    with pytest.raises(IntegrityError, match="manifest-1 is missing from memory://vault"):
        await read_manifest(storage, "backups/b/rs0/manifest-1")
    key = await write_journal(storage, "b", 1, 0)
    with pytest.raises(IntegrityError, match=f"{key} on memory://vault cannot be read"):
        await read_manifest(storage, key)


class _Catalogue:
    def __init__(self, *backups: Backup) -> None:
        self.known = {backup.id: backup for backup in backups}

    async def backups(self) -> list[Backup]:
        return list(self.known.values())

    async def publish_backup(self, backup: Backup) -> None:
        self.known[backup.id] = backup

    async def withdraw_copy(self, name: str, repository_id: str) -> None:
        assert repository_id == self.known[name].repository_id
        del self.known[name]

    async def hold_backup(self, name: str, hold: str | None) -> None:
        self.known[name] = self.known[name].model_copy(update={"hold": hold})


def _lead(objects: MemoryObjects, catalogue: _Catalogue) -> Any:
    async def open_storage(settings: object, profile: str) -> MemoryStorage:
        return await MemoryStorage.open(objects)

    services = SimpleNamespace(open_storage=open_storage, catalog=catalogue, runs=MemoryRuns())
    services.node = SimpleNamespace(id="rs0/db1:27017")
    services.repositories = SimpleNamespace(note=_ignored)
    lease = SimpleNamespace(check=lambda: None)
    settings = Settings(storage=StorageSettings(type="memory"))
    log = SimpleNamespace(error=lambda *given, **named: None)
    return SimpleNamespace(services=services, settings=settings, lease=lease, log=log)


async def _ignored(found: object) -> None:
    """Nobody asks what a profile leads to."""


def _resync() -> Operation:
    return Operation(id="r", kind=Kind.RESYNC, name="r", requested_at=datetime.now(UTC))


async def test_resync_makes_the_catalogue_say_what_storage_holds() -> None:
    storage = await MemoryStorage.open()
    one, two = await _published(storage, "one"), await _published(storage, "two", 2)
    await write_journal(storage, "unpublished", 1, 0)
    catalogue = _Catalogue(one, backup_document("gone", "op"))
    result = await ResyncKind().finish(_lead(storage.objects, catalogue), _resync())
    assert catalogue.known == {"one": one, "two": two}
    assert result == {
        "backups": 2,
        "withdrawn": ["gone"],
        "unreadable": [],
        "conflicting": [],
        "oplog_ranges": 0,
    }


async def test_resync_is_not_stopped_by_one_harmed_backup() -> None:
    storage = await MemoryStorage.open()
    one, two = await _published(storage, "one"), await _published(storage, "two", 2)
    storage.objects.bodies[backup_key("one")] = b"{"
    catalogue = _Catalogue(one)
    result = await ResyncKind().finish(_lead(storage.objects, catalogue), _resync())
    assert catalogue.known == {"one": one, "two": two}
    assert result["unreadable"] == ["one"]
    assert result["backups"] == 1


async def test_resync_of_a_newer_format_is_refused_and_changes_nothing() -> None:
    storage = await MemoryStorage.open()
    await put_bytes(storage, MARKER, b'{"format_version": 99}')
    catalogue = _Catalogue(backup_document("known", "op"))
    with pytest.raises(UnsupportedVersion):
        await ResyncKind().finish(_lead(storage.objects, catalogue), _resync())
    assert list(catalogue.known) == ["known"]


async def test_a_storage_that_refuses_to_delete_journals_does_not_fail_a_published_backup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backup = await _published(storage := await MemoryStorage.open())
    await write_journal(storage, "b", 1, 0)

    async def refused(keys: Any) -> None:
        raise PermissionDenied("deleting is not allowed")

    monkeypatch.setattr(storage, "delete", refused)
    await forget_journals(storage, backup)
    assert await read_backup(storage, "b") == backup
