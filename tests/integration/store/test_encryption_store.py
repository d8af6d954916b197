"""What the control database remembers of encryption, and that neither witness can be silenced."""

from __future__ import annotations

import pytest

from agent.errors import IntegrityError
from agent.store.connection import Control
from agent.store.encryption_store import EncryptionStore
from agent.wire.encryption import KeyHealth, Policy
from tests.support.vaults import Vaults

ADDRESS = "file:///backups"


@pytest.fixture
async def policies() -> list[Policy]:
    vaults = Vaults()
    first = await vaults.policy()
    return [first, await vaults.policy("KEY", "OTHER", before=first)]


@pytest.fixture
def store(control: Control) -> EncryptionStore:
    return EncryptionStore(control)


async def test_what_the_storage_says_is_remembered(
    store: EncryptionStore, policies: list[Policy]
) -> None:
    await store.compare(ADDRESS, policies[:1])
    await store.compare(ADDRESS, policies)
    (witness,) = await store.all()
    assert witness.policy == policies[-1]
    assert witness.policy.sha256 == policies[-1].sha256


async def test_a_storage_that_forgot_is_not_written_to(
    store: EncryptionStore, policies: list[Policy]
) -> None:
    await store.compare(ADDRESS, policies)
    with pytest.raises(IntegrityError, match="policies are gone"):
        await store.compare(ADDRESS, [])
    with pytest.raises(IntegrityError, match="not the one"):
        await store.compare(ADDRESS, policies[:1])
    await store.compare("file:///another", [])


async def test_another_policy_of_the_same_number_is_found(
    store: EncryptionStore, policies: list[Policy]
) -> None:
    await store.compare(ADDRESS, policies[:1])
    forged = policies[0].model_copy(update={"op_id": "forged"})
    with pytest.raises(IntegrityError, match="not the one"):
        await store.compare(ADDRESS, [forged])


async def test_a_database_that_forgot_is_told_again(
    store: EncryptionStore, control: Control, policies: list[Policy]
) -> None:
    await store.compare(ADDRESS, policies)
    await control.database.tidelogConfig.delete_many({"_id": {"$regex": "^encryption/"}})
    await store.compare(ADDRESS, policies)
    assert (await store.all())[0].policy == policies[-1]


async def test_what_a_probe_found_is_kept(store: EncryptionStore, policies: list[Policy]) -> None:
    await store.compare(ADDRESS, policies)
    await store.note("r1", [KeyHealth(key_id="k", error="is disabled")], "1 key is lost")
    (witness,) = await store.all()
    assert (witness.keys[0].error, witness.problem) == ("is disabled", "1 key is lost")
    assert witness.probed_at is not None
