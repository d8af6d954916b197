"""What becomes of backups, archiving, restores and deletion while a key is in trouble: one account
for every service that may hold it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, Protocol

import pytest

from agent.archive.keyring import TRUST_S
from agent.archive.layout import backup_key, slice_key
from agent.archive.vault import VaultStorage, write_for
from agent.errors import KeyUnusable
from agent.keys.registry import open_provider
from agent.operations.authenticity import check_in_clear
from agent.operations.backup.secrecy import prepare_key, sealed
from agent.operations.deletion import delete_backup
from agent.operations.inventory import published_names, read_document
from agent.operations.key_watch import check_keys
from agent.operations.keys_kept import probe
from agent.operations.restore.plan import read_backup
from agent.storage.base import put_bytes
from agent.storage.memory import MemoryStorage
from agent.wire.optime import OpTime
from tests.support.vaults import Vaults
from tests.unit.operations.repositories import publish

STATES: Final = ("disabled", "pending deletion", "deleted", "denied")
TOLD: Final = {
    "disabled": "disabled",
    "pending deletion": "pending deletion|to be deleted",
    "deleted": "deleted|no such key",
    "denied": "access is denied",
}


class KeyService(Protocol):
    """One service with one key."""

    name: str
    key_id: str
    options: dict[str, Any]
    environment: dict[str, str]

    async def trouble(self, state: str) -> None:
        """Bring the key into it; `enabled` ends it."""


def lead(*nodes: Any) -> Any:
    """Enough of one to begin a backup with."""

    async def live() -> list[Any]:
        return list(nodes)

    clock = SimpleNamespace(monotonic=lambda: 0.0)
    return SimpleNamespace(services=SimpleNamespace(nodes=SimpleNamespace(live=live), clock=clock))


async def begin(storage: VaultStorage, name: str) -> None:
    """What a backup does before anything else."""
    operation: Any = SimpleNamespace(id=f"op-{name}", name=name)
    await prepare_key(lead(), storage, operation, is_alone=True)


async def back_up(vaults: Vaults, name: str) -> None:
    """An encrypted backup without objects."""
    raw = await MemoryStorage.open(vaults.objects)
    made = await publish(raw, name, f"op-{name}", [])
    await raw.delete([backup_key(name)])
    storage = await vaults.open()
    await begin(storage, name)
    data_key = await storage.keyring.writing_key(backup_key(name))
    backup = await sealed(storage, made, {data_key.id})
    text = backup.model_dump_json(by_alias=True, exclude_none=True)
    await put_bytes(raw, backup_key(name), text.encode())


async def get_through(vaults: Vaults, service: KeyService, state: str) -> None:
    """Every claim, while the key is in trouble and after it."""
    provider = open_provider(service.name, service.options, vaults.around)
    policy = await vaults.policy_of(provider)
    await provider.aclose()
    await back_up(vaults, "first")
    await back_up(vaults, "second")
    slicer = await vaults.open()
    await write_for(slicer, "pitr", "rs0")
    at = OpTime(T=int(policy.since.timestamp()), I=1)
    wanted = slice_key("rs0", at, at, 1, 1)
    in_use = await slicer.keyring.writing_key(wanted)

    await service.trouble(state)
    before = dict(vaults.objects.bodies)
    # A new backup fails at once, with the backup, the key and its state, and has written nothing.
    with pytest.raises(KeyUnusable, match=TOLD[state]) as caught:
        await begin(await vaults.open(), "third")
    assert "the backup third" in str(caught.value)
    assert service.key_id in str(caught.value)
    assert vaults.objects.bodies == before
    # Archiving stops within minutes.
    assert await slicer.keyring.writing_key(wanted) == in_use
    await vaults.clock.advance(TRUST_S + 1)
    with pytest.raises(KeyUnusable, match=TOLD[state]):
        await slicer.keyring.writing_key(wanted)
    # A restore refuses where it reads the backup, long before it looks at the target.
    with pytest.raises(KeyUnusable, match=TOLD[state]) as caught:
        await read_backup(await vaults.open(), "first")
    assert service.key_id in str(caught.value)
    # Each agent says so, and so does the daily probe, with the backups that are in danger.
    check = await check_keys(await vaults.open())
    assert check.policy == policy.sha256
    assert service.key_id in check.error
    found, problem = await probe((await vaults.open()).keyring)
    assert {name for health in found for name in health.backups} == {"first", "second"}
    assert all(health.error for health in found)
    assert service.key_id in str(problem)
    # Listing, describing and deleting need no key.
    storage = await vaults.open()
    assert await published_names(storage) == ["first", "second"]
    document = await read_document(storage, "first")
    assert document is not None
    assert document[0].encryption is not None
    await check_in_clear(storage, *document)
    await delete_backup(storage, "second")
    assert await published_names(storage) == ["first"]

    if state == "deleted":
        return  # for good
    await service.trouble("enabled")
    assert await slicer.keyring.writing_key(wanted) == in_use
    assert (await read_backup(await vaults.open(), "first")).id == "first"
    await begin(await vaults.open(), "third")
    assert (await check_keys(await vaults.open())).error == ""
    _, problem = await probe((await vaults.open()).keyring)
    assert problem is None
