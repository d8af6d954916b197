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
    assert await store.compare(ADDRESS, policies[:1]) == 0
    await store.remember(ADDRESS, policies[0])
    assert await store.compare(ADDRESS, policies) == 1
    await store.remember(ADDRESS, policies[-1])
    assert await store.compare(ADDRESS, policies) == 2
    (witness,) = await store.all()
    assert witness.policy == policies[-1]
    assert witness.policy.sha256 == policies[-1].sha256


async def test_a_storage_that_forgot_is_not_written_to(
    store: EncryptionStore, policies: list[Policy]
) -> None:
    await store.remember(ADDRESS, policies[-1])
    with pytest.raises(IntegrityError, match="policies are gone"):
        await store.compare(ADDRESS, [])
    with pytest.raises(IntegrityError, match="not the one"):
        await store.compare(ADDRESS, policies[:1])
    await store.compare("file:///another", [])
    await store.compare("file:///another", policies)
    assert (await store.all())[0].address == "file:///another"


async def test_a_repository_in_the_place_of_another_is_found(
    store: EncryptionStore, policies: list[Policy]
) -> None:
    await store.remember(ADDRESS, policies[-1])
    other = policies[0].model_copy(update={"repository_id": "r2"})
    with pytest.raises(IntegrityError, match="was r1, and is r2 now"):
        await store.compare(ADDRESS, [other])


async def test_another_policy_of_the_same_number_is_found(
    store: EncryptionStore, policies: list[Policy]
) -> None:
    await store.remember(ADDRESS, policies[0])
    forged = policies[0].model_copy(update={"op_id": "forged"})
    with pytest.raises(IntegrityError, match="not the one"):
        await store.compare(ADDRESS, [forged])


async def test_a_database_that_forgot_is_told_again(
    store: EncryptionStore, control: Control, policies: list[Policy]
) -> None:
    await store.remember(ADDRESS, policies[-1])
    await control.database.tidelogConfig.delete_many({"_id": {"$regex": "^encryption/"}})
    assert await store.compare(ADDRESS, policies) == 0
    await store.remember(ADDRESS, policies[-1])
    assert (await store.all())[0].policy == policies[-1]


async def test_what_a_probe_found_is_kept(store: EncryptionStore, policies: list[Policy]) -> None:
    await store.remember(ADDRESS, policies[-1])
    await store.note("r1", [KeyHealth(key_id="k", error="is disabled")], "1 key is lost")
    (witness,) = await store.all()
    assert (witness.keys[0].error, witness.problem) == ("is disabled", "1 key is lost")
    assert witness.probed_at is not None
