"""How the Azure driver logs in: one test a link, against servers that check what they get."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError, PermissionDenied
from agent.storage.azure.driver import AzureStorage
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.storage.describing import ending_in_words
from agent.storage.observing import StorageCounters
from agent.storage.precedence import Link
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.surroundings import Surroundings
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.azurite import ACCOUNT, KEY, Azurite, secure_azurite, shared_azurite
from tests.support.servers.tokens import CLIENT, SUBJECT_TOKEN, TENANT, TokenService

pytestmark = pytest.mark.contract


@pytest.fixture
async def azurite() -> AsyncIterator[Azurite]:
    server = shared_azurite()
    async with server.client():
        yield server


@pytest.fixture
async def secure() -> AsyncIterator[Azurite]:
    server = secure_azurite()
    async with server.client():
        yield server


@asynccontextmanager
async def opened(
    server: Azurite, credentials: Mapping[str, Any], environment: Mapping[str, str], **more: Any
) -> AsyncIterator[AzureStorage]:
    settings = server.settings(secrets.token_hex(4), credentials=credentials, **more)
    storage = await AzureStorage.open(settings, Surroundings(environment=environment))
    try:
        yield storage
    finally:
        await storage.aclose()


async def proves(storage: Storage) -> None:
    await put_bytes(storage, "key", b"body")
    assert await get_bytes(storage, "key") == b"body"
    await storage.delete(["key"])


async def test_a_connection_string_a_key_and_a_sas_token_log_in(azurite: Azurite) -> None:
    for given in (
        {"connectionString": azurite.connection_string},
        {"key": KEY},
        {"sasToken": azurite.sas()},
        {"sasToken": "?" + azurite.sas()},
    ):
        async with opened(azurite, given, {}) as storage:
            assert storage.credentials.link is Link.EXPLICIT
            await proves(storage)


async def test_keys_of_the_environment_log_in(azurite: Azurite) -> None:
    for environment in (
        {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string},
        {"AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY},
        {"AZURE_STORAGE_SAS_TOKEN": azurite.sas()},
    ):
        async with opened(azurite, {}, environment) as storage:
            assert storage.credentials.link is Link.ENVIRONMENT
            await proves(storage)


async def test_a_rotated_key_is_used_by_the_next_request(azurite: Azurite, tmp_path: Path) -> None:
    path = tmp_path / "sas"
    path.write_text(azurite.sas(lifetime_s=-3600))
    async with opened(azurite, {"sasToken": {"file": str(path)}}, {}) as storage:
        with pytest.raises(PermissionDenied):
            await storage.stat("key")
        path.write_text(azurite.sas())
        await proves(storage)


async def test_an_expired_sas_token_is_told_and_a_good_one_says_how_long(azurite: Azurite) -> None:
    async with opened(azurite, {"sasToken": azurite.sas(lifetime_s=-60)}, {}) as storage:
        with pytest.raises(PermissionDenied, match="the SAS token has expired") as raised:
            await put_bytes(storage, "key", b"")
        assert "sig=" not in str(raised.value)
    async with opened(azurite, {"sasToken": azurite.sas(lifetime_s=600)}, {}) as storage:
        await proves(storage)
        assert 500 < (storage.credentials_left_s or 0) < 700


async def test_a_sas_token_without_write_is_refused_with_what_to_give(azurite: Azurite) -> None:
    async with opened(azurite, {"sasToken": azurite.sas("rl")}, {}) as storage:
        with pytest.raises(PermissionDenied, match="AuthorizationPermissionMismatch") as raised:
            await put_bytes(storage, "key", b"")
    assert "rcwdl" in raised.value.hint
    assert "request" in str(raised.value)


async def test_a_wrong_key_is_told_without_the_key(azurite: Azurite) -> None:
    wrong = KEY[::-1].strip("=") + "=="
    async with opened(azurite, {"key": wrong[-88:]}, {}) as storage:
        with pytest.raises((PermissionDenied, ConfigError)) as raised:
            await storage.stat("key")
    assert wrong[-20:] not in str(raised.value)


async def test_what_is_no_key_is_told_as_that(azurite: Azurite) -> None:
    string = f"AccountName={ACCOUNT};AccountKey=no-key!;BlobEndpoint={azurite.url}"
    for given in ({"key": "no-key!"}, {"connectionString": string}):
        with pytest.raises(ConfigError, match="not Base64") as raised:
            async with opened(azurite, given, {}) as storage:
                await storage.stat("key")
        assert "no-key!" not in str(raised.value)


async def test_a_federated_token_a_secret_and_a_managed_identity_get_tokens(
    secure: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(SUBJECT_TOKEN)
    who = {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT}
    inherit = {"inheritFromAzureAD": True}
    application = {"clientId": CLIENT, "tenantId": TENANT, "clientSecret": "a-client-secret"}
    async with (
        TokenService(secure.certificates.server) as service,
        TokenService() as metadata,
    ):
        around = {**who, "AZURE_AUTHORITY_HOST": service.url}
        federated = around | {"AZURE_FEDERATED_TOKEN_FILE": str(token_file)}
        async with opened(secure, inherit, federated) as storage:
            assert storage.credentials.link is Link.WEB_IDENTITY
            await proves(storage)
        async with opened(secure, application, {"AZURE_AUTHORITY_HOST": service.url}) as storage:
            assert storage.credentials.link is Link.EXPLICIT
            await proves(storage)
        secret = around | {"AZURE_CLIENT_SECRET": "a-client-secret"}
        async with opened(secure, inherit, secret) as storage:
            assert storage.credentials.link is Link.ENVIRONMENT
            await proves(storage)
        assert service.asked == ["federated", "secret", "secret"]
        monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", metadata.url)
        async with opened(secure, inherit, {}) as storage:
            assert storage.credentials.link is Link.METADATA
            await proves(storage)
        assert set(metadata.asked) == {"managed"}


async def test_a_token_that_ends_in_the_middle_of_an_upload_is_renewed(secure: Azurite) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        # The token is asked for with the first part, which is sent when the second is there.
        for _ in range(6):
            await asyncio.sleep(0.8)
            yield bytes(1 << 20)

    async with TokenService(secure.certificates.server) as service:
        service.lifetime_s = 2
        given = {"clientId": CLIENT, "tenantId": TENANT, "clientSecret": "a-client-secret"}
        around = {"AZURE_AUTHORITY_HOST": service.url}
        async with opened(secure, given, around, uploadPartSize="1MiB") as storage:
            stored = await storage.put("long", slowly())
            assert stored.size_bytes == (await storage.stat("long")).size_bytes == 6 << 20
        assert len(service.asked) > 1


async def test_a_refused_identity_says_why(secure: Azurite) -> None:
    async with TokenService(secure.certificates.server) as service:
        given = {"clientId": CLIENT, "tenantId": TENANT, "clientSecret": "wrong"}
        around = {"AZURE_AUTHORITY_HOST": service.url}
        async with opened(secure, given, around) as storage:
            with pytest.raises(PermissionDenied, match="AADSTS7000215"):
                await storage.stat("key")


async def test_a_private_authority_must_be_given(secure: Azurite) -> None:
    async with opened(secure, {"key": KEY}, {}, endpointCA=None) as storage:
        with pytest.raises(ConfigError, match="not trusted") as raised:
            await storage.stat("key")
    assert "endpointCA" in raised.value.hint


SECRETS = {"AZURE_CLIENT_ID": CLIENT, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_SECRET": "s"}


@pytest.mark.parametrize(
    ("given", "environment", "link"),
    [
        (
            {"key": KEY},
            {"AZURE_FEDERATED_TOKEN_FILE": "/t", "AZURE_STORAGE_KEY": "k", **SECRETS},
            Link.EXPLICIT,
        ),
        ({}, {"AZURE_FEDERATED_TOKEN_FILE": "/t", **SECRETS}, Link.WEB_IDENTITY),
        ({}, {"AZURE_STORAGE_KEY": KEY}, Link.ENVIRONMENT),
        ({}, SECRETS, Link.ENVIRONMENT),
        ({"inheritFromAzureAD": True}, {"AZURE_STORAGE_KEY": KEY}, Link.METADATA),
        ({"inheritFromAzureAD": True}, SECRETS, Link.ENVIRONMENT),
        ({}, {}, Link.METADATA),
    ],
)
async def test_who_wins(
    azurite: Azurite, given: dict[str, Any], environment: dict[str, str], link: Link
) -> None:
    nowhere = "https://account.blob.core.windows.net"
    async with opened(azurite, given, environment, endpointUrl=nowhere) as storage:
        assert storage.credentials.link is link


async def test_a_sas_token_that_ends_soon_is_warned_of(azurite: Azurite) -> None:
    for lifetime_s, is_warned in ((600.0, True), (30 * 86_400.0, False)):
        token = azurite.sas(lifetime_s=lifetime_s)
        section = azurite.settings(secrets.token_hex(4), credentials={"sasToken": token})
        counters = StorageCounters()
        storage = await open_storage(
            StorageSettings(type="azure", azure=section), StorageOptions(counters=counters)
        )
        await storage.verify()
        await storage.aclose()
        left_s = counters.credentials_left_s
        assert left_s is not None
        assert lifetime_s - 100 < left_s <= lifetime_s
        warning = ending_in_words(left_s)
        assert (warning is not None) is is_warned
