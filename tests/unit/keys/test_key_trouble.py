"""Keys in trouble, as every agent meets them: with a provider of this process. The services are in
`contract/test_key_trouble.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import IntegrityError, KeyUnusable, Refused
from agent.operations.backup.secrecy import prepare_key
from agent.operations.key_watch import check_keys
from agent.wire.encryption import PROVIDERS, KeyState, ProviderModule
from tests.support.key_trouble import STATES, begin, get_through, lead
from tests.support.one_file_provider import NAME, SERVICE, Held
from tests.support.vaults import Vaults


class OneFile:
    """See `KeyService`."""

    name = NAME
    key_id = "mine"

    def __init__(self) -> None:
        self.options: dict[str, Any] = {"keyId": self.key_id}
        self.environment: dict[str, str] = {}
        SERVICE[self.key_id] = Held()

    async def trouble(self, state: str) -> None:
        """See `KeyService`."""
        if state == "deleted":
            del SERVICE[self.key_id]
        else:
            held = SERVICE[self.key_id]
            held.is_denied = state == "denied"
            held.state = KeyState.ENABLED if held.is_denied else KeyState(state)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[OneFile]:
    monkeypatch.setitem(PROVIDERS, NAME, ProviderModule("tests.support.one_file_provider"))
    SERVICE.clear()
    yield OneFile()
    SERVICE.clear()


@pytest.mark.parametrize("state", STATES)
async def test_trouble_with_a_key_is_loud_early_and_passes(service: OneFile, state: str) -> None:
    """D15–D19."""
    async with aclosing(Vaults(environment=service.environment)) as vaults:
        await get_through(vaults, service, state)


async def test_a_wrong_key_on_one_agent_is_named_and_no_backup_begins() -> None:
    """E17."""
    vaults = Vaults()
    policy = await vaults.policy()
    await (await vaults.open()).keyring.policy()
    other = Vaults(vaults.objects, {"KEY": "cd" * 32}, remembered=vaults.remembered)
    check = await check_keys(await other.open())
    assert "has fingerprint" in check.error
    nodes = [
        SimpleNamespace(host="a:1", key_policies=(policy.sha256,), key_error=None),
        SimpleNamespace(
            host="b:1",
            key_policies=(policy.sha256,),
            key_error=check.error,
            key_fingerprint=check.fingerprint,
        ),
    ]
    operation: Any = SimpleNamespace(id="op", name="b")
    before = dict(vaults.objects.bodies)
    with pytest.raises(Refused, match="b:1 has fingerprint") as caught:
        await prepare_key(lead(*nodes), await vaults.open(), operation, is_alone=True)
    assert "cannot be used everywhere" in str(caught.value)
    assert vaults.objects.bodies == before
    # Nor does it wrap anything with its own key, whatever it is asked to do.
    with pytest.raises(KeyUnusable, match="has fingerprint"):
        await begin(await other.open(), "b")
    assert vaults.objects.bodies == before


async def test_a_removed_policy_stops_every_writer() -> None:
    """D10: whoever had seen it does not take its absence for permission."""
    vaults = Vaults()
    await vaults.policy()
    storage = await vaults.open()
    await storage.keyring.policy()
    vaults.objects.bodies = {
        key: body for key, body in vaults.objects.bodies.items() if "encryption/" not in key
    }
    vaults.objects.keys = sorted(vaults.objects.bodies)
    with pytest.raises(IntegrityError, match="missing"):
        await storage.keyring.policy(fresh=True)
