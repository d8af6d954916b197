"""Key management services over their real APIs: AWS's by moto."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from agent.errors import ConfigError, KeyServiceUnavailable, KeyUnusable
from agent.keys.aws_kms import AwsKmsProvider
from agent.storage.surroundings import Surroundings
from agent.wire.encryption import KeyState
from tests.support.mongod.ports import free_port
from tests.support.servers.moto import shared_moto

CONTEXT = {"tidelog-repository": "r1", "tidelog-key": "k1"}
KEYS = {"ID": "test", "SECRET": "test"}
CREDENTIALS = {"accessKeyId": {"env": "ID"}, "secretAccessKey": {"env": "SECRET"}}


def provider(key: str, url: str | None = None) -> AwsKmsProvider:
    endpoint = url or shared_moto().url
    options = {
        "keyId": key,
        "region": "eu-central-1",
        "endpointUrl": endpoint,
        "credentials": CREDENTIALS,
    }
    return AwsKmsProvider(options, Surroundings(environment=KEYS))


@pytest.fixture
async def made() -> AsyncIterator[AwsKmsProvider]:
    async with aclosing(provider("auto")) as found:
        await found.kek()
        yield found


async def test_a_key_is_made_wraps_and_unwraps(made: AwsKmsProvider) -> None:
    kek = await made.kek()
    assert kek.key.startswith("arn:aws:kms:eu-central-1:")
    assert kek.is_service
    data_key, wrapped = await made.generate(CONTEXT)
    assert len(data_key) == 32
    async with aclosing(AwsKmsProvider(kek.options, Surroundings(environment=KEYS))) as again:
        assert await again.unwrap(wrapped, CONTEXT) == data_key
        assert await again.unwrap(await again.wrap(data_key, CONTEXT), CONTEXT) == data_key
        with pytest.raises(KeyUnusable, match="InvalidCiphertext"):
            await again.unwrap(wrapped, {**CONTEXT, "tidelog-key": "k2"})


async def test_an_alias_is_resolved_to_its_key(made: AwsKmsProvider) -> None:
    kek = await made.kek()
    await made._ask("create_alias", AliasName="alias/backups", TargetKeyId=kek.key)
    async with aclosing(provider("alias/backups")) as found:
        named = await found.kek()
    assert (named.id, named.key, named.alias) == (kek.id, kek.key, "alias/backups")
    assert named.options["keyId"] == kek.key


async def test_a_key_is_tagged_as_in_use(made: AwsKmsProvider) -> None:
    kek = await made.kek()
    assert await made.mark("repository1") is None
    tags = (await made._ask("list_resource_tags", KeyId=kek.key))["Tags"]
    assert tags == [{"TagKey": "tidelog-repository", "TagValue": "repository1"}]


@pytest.mark.parametrize(
    ("change", "arguments", "state"),
    [
        ("disable_key", {}, KeyState.DISABLED),
        ("schedule_key_deletion", {"PendingWindowInDays": 7}, KeyState.PENDING_DELETION),
    ],
)
async def test_the_state_of_a_key_is_told(
    made: AwsKmsProvider, change: str, arguments: dict[str, Any], state: KeyState
) -> None:
    kek = await made.kek()
    # moto knows the key by its id here, and goes on using it: that it is not used is the business
    # of the service, and of whoever asks for the state first.
    await made._ask(change, KeyId=kek.key.rpartition("/")[2], **arguments)
    told = await made.describe()
    assert told.state is state
    assert not told.state.is_usable
    assert (told.deletion_at is not None) == (state is KeyState.PENDING_DELETION)


async def test_a_key_that_is_not_there_is_deleted() -> None:
    async with aclosing(provider("00000000-0000-0000-0000-000000000000")) as found:
        assert (await found.describe()).state is KeyState.DELETED
        with pytest.raises(KeyUnusable, match="no such key"):
            await found.kek()


async def test_a_service_that_does_not_answer_is_transient() -> None:
    async with aclosing(provider("k", f"http://127.0.0.1:{free_port()}")) as found:
        async with asyncio.timeout(30):
            with pytest.raises(KeyServiceUnavailable):
                await found.generate(CONTEXT)


def test_a_secret_in_clear_is_refused() -> None:
    credentials = {"accessKeyId": "a", "secretAccessKey": "hunter2hunter2"}
    with pytest.raises(ConfigError) as caught:
        AwsKmsProvider({"keyId": "k", "credentials": credentials}, Surroundings(environment=KEYS))
    assert "hunter2" not in str(caught.value)
