"""Whose tokens the GCS driver uses: one test a link, against services that check what they get."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError, PermissionDenied, TidelogError
from agent.storage.base import Storage, get_bytes, put_bytes
from agent.storage.gcs.driver import GcsStorage
from agent.storage.precedence import Link
from agent.storage.registry import StorageOptions, open_storage
from agent.storage.surroundings import Surroundings
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.fake_gcs import Front, shared_fake_gcs
from tests.support.servers.tokens import SUBJECT_TOKEN, TokenService, private_key

pytestmark = pytest.mark.contract


@pytest.fixture
async def service() -> AsyncIterator[TokenService]:
    async with TokenService() as service:
        yield service


@pytest.fixture
async def front(service: TokenService) -> AsyncIterator[Front]:
    async with Front(shared_fake_gcs().url, service.tokens) as front:
        yield front


@asynccontextmanager
async def opened(
    front: Front, credentials: Mapping[str, Any], environment: Mapping[str, str], **more: Any
) -> AsyncIterator[Storage]:
    settings = shared_fake_gcs().settings(
        secrets.token_hex(4), endpointUrl=front.url, credentials=credentials, **more
    )
    storage = await open_storage(
        StorageSettings(type="gcs", gcs=settings), StorageOptions(environment=environment)
    )
    try:
        yield storage
    finally:
        await storage.aclose()


async def proves(storage: Storage) -> None:
    await put_bytes(storage, "key", b"body")
    assert await get_bytes(storage, "key") == b"body"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_the_json_of_a_service_account_signs_for_tokens(
    service: TokenService, front: Front, tmp_path: Path
) -> None:
    path = written(tmp_path / "account.json", service.google_account())
    for given in (
        {"applicationCredentials": {"file": str(path)}},
        {"file": str(path)},
        {"applicationCredentials": service.google_account()},
    ):
        async with opened(front, given, {}) as storage:
            await proves(storage)
    assert service.asked == ["service account"] * 3


async def test_the_variable_and_the_file_of_gcloud_are_found(
    service: TokenService, front: Front, tmp_path: Path
) -> None:
    path = written(tmp_path / "application_default_credentials.json", service.google_account())
    for environment in (
        {"GOOGLE_APPLICATION_CREDENTIALS": str(path)},
        {"CLOUDSDK_CONFIG": str(tmp_path)},
    ):
        async with opened(front, {}, environment) as storage:
            await proves(storage)
    assert service.asked == ["service account"] * 2


async def test_an_external_account_exchanges_its_token_read_anew_each_time(
    service: TokenService, front: Front, tmp_path: Path
) -> None:
    token_file = written(tmp_path / "token", SUBJECT_TOKEN)
    path = written(tmp_path / "external.json", service.external_account(token_file))
    service.lifetime_s = 1
    async with opened(front, {}, {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}) as storage:
        await proves(storage)
        service.subject_tokens = {"the next one"}
        token_file.write_text("the next one")
        await asyncio.sleep(1.1)
        assert await get_bytes(storage, "key") == b"body"
    assert service.asked == ["exchange", "impersonation"] * (len(service.asked) // 2)
    assert len(service.asked) >= 4


async def test_the_metadata_server_gives_tokens_where_nothing_else_is_there(
    service: TokenService, front: Front, tmp_path: Path
) -> None:
    around = {"GCE_METADATA_HOST": service.host}
    lying = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "absent.json")}
    async with opened(front, {}, around) as storage:
        await proves(storage)
    async with opened(front, {"gkeEnvironment": True}, around | lying) as storage:
        await proves(storage)
    assert service.asked == ["metadata"] * 2


async def test_tokens_that_end_in_the_middle_of_an_upload_are_renewed(
    service: TokenService, front: Front
) -> None:
    service.lifetime_s = 1
    first: set[str] = set()

    async def slow() -> AsyncIterator[bytes]:
        for turn in range(4):
            yield bytes(512 * 1024)
            if turn == 1:
                first.update(service.tokens)
                await asyncio.sleep(1.0)
                service.tokens -= first  # as Google does when they end

    given = {"applicationCredentials": service.google_account()}
    async with opened(front, given, {}, uploadPartSize="256KiB") as storage:
        stored = await storage.put("key", slow())
    assert stored.size_bytes == 4 * 512 * 1024
    assert first
    assert service.tokens - first


@pytest.mark.parametrize(
    ("explicit", "federated", "variable", "profile", "gke", "link"),
    [
        (True, True, True, True, False, Link.EXPLICIT),
        (False, True, False, True, False, Link.WEB_IDENTITY),
        (False, False, True, True, False, Link.ENVIRONMENT),
        (False, False, False, True, False, Link.PROFILE),
        (False, False, False, False, False, Link.METADATA),
        (False, True, False, True, True, Link.METADATA),
    ],
)
async def test_who_wins(
    service: TokenService,
    tmp_path: Path,
    explicit: bool,
    federated: bool,
    variable: bool,
    profile: bool,
    gke: bool,
    link: Link,
) -> None:
    environment: dict[str, str] = {"HOME": str(tmp_path / "home")}
    if federated or variable:
        text = service.external_account(tmp_path) if federated else service.google_account()
        path = written(tmp_path / "variable.json", text)
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(path)
    if profile:
        written(tmp_path / "application_default_credentials.json", service.google_account())
        environment["CLOUDSDK_CONFIG"] = str(tmp_path)
    given: dict[str, Any] = {"gkeEnvironment": gke}
    if explicit:
        given |= {"clientEmail": "a@b", "privateKey": private_key()}
    settings = shared_fake_gcs().settings(credentials=given)
    storage = await GcsStorage.open(settings, Surroundings(environment=environment))
    assert storage.credentials.link is link
    await storage.aclose()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no JSON"),
        ('{"type": "gdch"}', "'gdch' cannot be used"),
        ('{"type": "service_account", "client_email": "a@b"}', "lack private_key"),
    ],
)
async def test_a_json_that_cannot_be_used_says_why(front: Front, text: str, told: str) -> None:
    async with opened(front, {"applicationCredentials": text}, {}) as storage:
        with pytest.raises(ConfigError, match=told):
            await storage.stat("key")


async def test_hmac_keys_are_pointed_to_the_s3_driver(front: Front) -> None:
    with pytest.raises(ConfigError, match="HMAC") as raised:
        async with opened(front, {"hmacAccessKey": "k", "hmacSecret": "s"}, {}):
            pass
    assert "type: s3" in raised.value.hint


async def test_a_refused_key_is_told_without_the_key(service: TokenService, front: Front) -> None:
    text = service.google_account().replace(service.url, f"{service.url}/elsewhere/..")
    async with opened(front, {"applicationCredentials": text}, {}) as storage:
        with pytest.raises(TidelogError) as raised:
            await storage.stat("key")
    assert isinstance(raised.value, PermissionDenied)
    assert "PRIVATE" not in str(raised.value)
    assert "explicit" in str(raised.value)
