"""A further provider is one file and one line: all that encryption does works with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.archive.layout import chunk_key
from agent.archive.objects import fetch_framed, put_framed
from agent.archive.vault import stored_name
from agent.archive.wraps import check_usable
from agent.errors import KeyUnusable
from agent.keys.registry import open_provider
from agent.operations.keys_kept import probe
from agent.wire.encryption import PROVIDERS, KeyState, Policy, ProviderModule
from tests.support.one_file_provider import NAME, SERVICE, Held
from tests.support.vaults import Vaults

CHUNK = chunk_key("rs0", "00" * 16, "0123456789abcdef01234567", 1, 1)


@pytest.fixture(autouse=True)
def one_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(PROVIDERS, NAME, ProviderModule("tests.support.one_file_provider"))
    SERVICE.clear()
    yield
    SERVICE.clear()


async def encrypted(vaults: Vaults) -> tuple[Policy, str, int]:
    """A repository under a key of it, and one object: its digest and size."""
    provider = open_provider(NAME, {"keyId": "auto"}, vaults.around)
    policy = await vaults.policy_of(provider)
    storage = await vaults.writing()
    stored, digest = await put_framed(storage, stored_name(storage, CHUNK), {"kind": "chunk"}, [])
    return policy, digest, stored.size_bytes


async def reads(vaults: Vaults, digest: str, size: int) -> None:
    await fetch_framed(await vaults.open(), CHUNK + ".enc", size_bytes=size, sha256=digest)


async def test_a_repository_is_encrypted_and_read_with_it() -> None:
    vaults = Vaults()
    policy, digest, size = await encrypted(vaults)
    assert (policy.keks[0].key, policy.keks[0].is_service) == ("here:key0", True)
    await reads(vaults, digest, size)
    found, problem = await probe((await vaults.open()).keyring)
    assert problem is None
    assert len(found) == 1


async def test_its_states_are_told_and_stop_what_needs_the_key() -> None:
    vaults = Vaults()
    policy, digest, size = await encrypted(vaults)
    await reads(vaults, digest, size)
    for state in (KeyState.DISABLED, KeyState.PENDING_DELETION, KeyState.DELETED):
        if state is KeyState.DELETED:
            del SERVICE["key0"]
        else:
            SERVICE["key0"].state = state
        with pytest.raises(KeyUnusable, match=f"here:key0 is {state.value}"):
            await reads(vaults, digest, size)
        _, problem = await probe((await vaults.open()).keyring)
        assert state.value in str(problem)
        provider = open_provider(NAME, policy.keks[0].options, vaults.around)
        with pytest.raises(KeyUnusable, match=state.value):
            await check_usable(provider, policy.keks[0])


async def test_a_rotation_brings_it_in_beside_another() -> None:
    vaults = Vaults()
    first = await vaults.policy()
    storage = await vaults.writing()
    stored, digest = await put_framed(storage, stored_name(storage, CHUNK), {"kind": "chunk"}, [])
    SERVICE["mine"] = Held()
    provider = open_provider(NAME, {"keyId": "mine"}, vaults.around)
    await vaults.policy_of(provider, before=first)
    found, problem = await probe((await vaults.open()).keyring)
    assert problem is None
    assert len(found[0].keks) == 2
    vaults.environment.clear()
    await reads(vaults, digest, stored.size_bytes)
