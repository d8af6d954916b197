"""Alibaba Cloud's key management, against a stand-in that checks the signature of every call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from agent.errors import ConfigError, KeyServiceUnavailable, KeyUnusable
from agent.keys.aliyun_kms import AliyunKmsProvider
from agent.keys.registry import open_provider
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import KeyState
from tests.support.mongod.ports import free_port
from tests.support.servers.aliyun.server import AGENT, NOBODY, ROLE, AliyunServer, shared_aliyun

pytestmark = pytest.mark.contract

CONTEXT = {"tidelog-repository": "r1", "tidelog-key": "k1"}
AROUND = {"ID": AGENT.access_key, "SECRET": AGENT.secret_key, "OTHER": NOBODY.secret_key}
CREDENTIALS = {"accessKeyID": {"env": "ID"}, "accessKeySecret": {"env": "SECRET"}}


@pytest.fixture
def server() -> AliyunServer:
    server = shared_aliyun()
    server.tell("seen")
    return server


def provider(server: AliyunServer, key: str, **more: Any) -> AliyunKmsProvider:
    options = {
        "keyId": key,
        "region": "eu-central-1",
        "endpointUrl": server.url,
        "credentials": {**CREDENTIALS, "stsEndpointUrl": server.url},
        **more,
    }
    return AliyunKmsProvider(options, Surroundings(environment=AROUND))


@pytest.fixture
async def made(server: AliyunServer) -> AsyncIterator[AliyunKmsProvider]:
    async with aclosing(provider(server, "auto")) as found:
        await found.kek()
        yield found


async def test_a_key_is_made_wraps_and_unwraps(made: AliyunKmsProvider) -> None:
    kek = await made.kek()
    assert kek.key.startswith("acs:kms:eu-central-1:")
    assert kek.is_service
    data_key, wrapped = await made.generate(CONTEXT)
    assert len(data_key) == 32
    assert data_key not in wrapped
    again = open_provider(kek.provider, kek.options, Surroundings(environment=AROUND))
    assert await again.unwrap(wrapped, CONTEXT) == data_key
    assert await again.unwrap(await again.wrap(data_key, CONTEXT), CONTEXT) == data_key
    assert (await again.kek()).id == kek.id
    with pytest.raises(KeyUnusable, match="another key than the one this was wrapped with"):
        await again.unwrap(wrapped, {**CONTEXT, "tidelog-key": "k2"})
    await again.aclose()


async def test_the_context_goes_with_every_use(
    made: AliyunKmsProvider, server: AliyunServer
) -> None:
    data_key, wrapped = await made.generate(CONTEXT)
    await made.wrap(data_key, CONTEXT)
    await made.unwrap(wrapped, CONTEXT)
    calls = {each["Action"]: each.get("EncryptionContext") for each in server.tell("seen")["rpc"]}
    written = '{"tidelog-key": "k1", "tidelog-repository": "r1"}'
    for action in ("GenerateDataKey", "Encrypt", "Decrypt"):
        assert calls[action] == written


async def test_an_alias_is_resolved_to_its_key(server: AliyunServer) -> None:
    key_id = server.tell("key", alias="alias/backups")
    async with aclosing(provider(server, "alias/backups")) as found:
        kek = await found.kek()
    assert kek.alias == "alias/backups"
    assert kek.key.endswith(f"key/{key_id}")
    assert kek.options["keyId"] == key_id
    async with aclosing(provider(server, key_id)) as found:
        by_id = await found.kek()
    assert (by_id.id, by_id.alias) == (kek.id, "alias/backups")


async def test_a_key_is_tagged_as_in_use(made: AliyunKmsProvider) -> None:
    """D9."""
    assert await made.mark("repository1") is None


@pytest.mark.parametrize(
    ("state", "told", "wanted", "hint"),
    [
        ("Disabled", "it is disabled", KeyState.DISABLED, "enable the key"),
        ("PendingDeletion", "to be deleted", KeyState.PENDING_DELETION, "cancel its deletion"),
        ("PendingImport", "material is missing", KeyState.PENDING_IMPORT, "import"),
        ("deleted", "no such key", KeyState.DELETED, "another wrap"),
    ],
)
async def test_trouble_with_a_key_is_told_apart(
    made: AliyunKmsProvider,
    server: AliyunServer,
    state: str,
    told: str,
    wanted: KeyState,
    hint: str,
) -> None:
    """D15–D17: key and state are named, and what to do; the state is told without use of it."""
    data_key, wrapped = await made.generate(CONTEXT)
    kek = await made.kek()
    key_id = kek.options["keyId"]
    server.tell("key-state", id=key_id, state=state, delete_on="2026-12-24T00:00:00Z")
    for use in (
        made.generate(CONTEXT),
        made.wrap(data_key, CONTEXT),
        made.unwrap(wrapped, CONTEXT),
    ):
        with pytest.raises(KeyUnusable, match=told) as caught:
            await use
        assert key_id in str(caught.value)
        assert hint in caught.value.hint
    described = await made.describe()
    assert described.state is wanted
    assert not described.state.is_usable
    assert (described.deletion_at is not None) == (state != "deleted")


async def test_access_denied_is_told_apart(server: AliyunServer) -> None:
    key_id = server.tell("key")
    denied = {"accessKeyID": NOBODY.access_key, "accessKeySecret": {"env": "OTHER"}}
    async with aclosing(provider(server, key_id, credentials=denied)) as found:
        with pytest.raises(KeyUnusable, match="access is denied") as caught:
            await found.generate(CONTEXT)
        assert "kms:GenerateDataKey" in caught.value.hint
        assert (await found.describe()).state is KeyState.UNKNOWN


async def test_a_role_is_assumed_as_for_the_storage(server: AliyunServer) -> None:
    key_id = server.tell("key")
    given = {
        "accessKeyID": NOBODY.access_key,
        "accessKeySecret": {"env": "OTHER"},
        "roleArn": ROLE,
        "sessionName": "backup",
        "stsEndpointUrl": server.url,
    }
    async with aclosing(provider(server, key_id, credentials=given)) as found:
        data_key, wrapped = await found.generate(CONTEXT)
        assert await found.unwrap(wrapped, CONTEXT) == data_key
    calls = server.tell("seen")["rpc"]
    assert [each["Action"] for each in calls] == ["AssumeRole", "GenerateDataKey", "Decrypt"]


async def test_wrong_credentials_are_told_without_the_secret(server: AliyunServer) -> None:
    wrong = {"accessKeyID": AGENT.access_key, "accessKeySecret": {"env": "OTHER"}}
    async with aclosing(provider(server, server.tell("key"), credentials=wrong)) as found:
        with pytest.raises(KeyUnusable, match="SignatureDoesNotMatch") as caught:
            await found.generate(CONTEXT)
    assert NOBODY.secret_key not in str(caught.value)


async def test_a_service_that_does_not_answer_is_transient(server: AliyunServer) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with aclosing(provider(server, "k", endpointUrl=nowhere)) as found:
        async with asyncio.timeout(30):
            with pytest.raises(KeyServiceUnavailable, match="aliyun-kms key k"):
                await found.generate(CONTEXT)


def test_options_are_checked() -> None:
    around = Surroundings(environment={})
    literal = {"accessKeyID": "a", "accessKeySecret": "hunter2hunter2"}
    with pytest.raises(ConfigError, match="in clear") as caught:
        AliyunKmsProvider({"keyId": "k", "region": "r", "credentials": literal}, around)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="region"):
        AliyunKmsProvider({"keyId": "k"}, around)
    AliyunKmsProvider({"keyId": "acs:kms:eu-central-1:1:key/k"}, around)
