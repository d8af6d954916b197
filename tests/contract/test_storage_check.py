"""`ctl storage check` on real servers: what each right is found to be, and what the store says."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.storage.examining import Examination, examine
from agent.storage.registry import StorageOptions, open_bare
from agent.wire.storage_reports import Verdict
from agent.wire.storage_settings import StorageSettings
from tests.support.servers.aliyun.server import AGENT as ALIYUN_AGENT
from tests.support.servers.aliyun.server import shared_aliyun
from tests.support.servers.azurite import shared_azurite
from tests.support.servers.fake_gcs import Front, shared_fake_gcs
from tests.support.servers.seaweedfs import (
    ADMIN,
    AGENT,
    BUCKET,
    READER,
    SeaweedFS,
    shared_seaweedfs,
)

NEEDED = {"put", "list", "get", "range", "conditional put", "multipart", "abort", "delete"}


@pytest.fixture(scope="module")
def server() -> SeaweedFS:
    """The shared one."""
    return shared_seaweedfs()


async def _examined(
    settings: StorageSettings, measure_bytes: int = 0, environment: Mapping[str, str] | None = None
) -> Examination:
    options = StorageOptions(node="db1:27017", environment=environment)
    storage = await open_bare(settings, options)
    try:
        return await examine(storage, SystemClock(), measure_bytes)
    finally:
        await storage.aclose()


def _s3(server: SeaweedFS, **more: Any) -> StorageSettings:
    settings = server.settings(f"check/{secrets.token_hex(4)}", **more)
    return StorageSettings(type="s3", s3=settings)


def _verdicts(found: Examination) -> dict[str, Verdict]:
    return {permission.name: permission.verdict for permission in found.permissions}


async def test_s3_tells_each_right_and_what_it_is(server: SeaweedFS) -> None:
    settings = _s3(server)
    found = await _examined(settings, 9 << 20)
    assert _verdicts(found) == dict.fromkeys(NEEDED, Verdict.YES)
    facts = found.description
    assert facts.credentials == "explicit"
    assert facts.identity == f"access key {AGENT.access_key}"
    assert facts.tls == "no: requests go in clear"
    assert facts.clock_skew_s is not None
    assert abs(facts.clock_skew_s) < 10
    assert facts.encryption == "none"
    assert found.write_bytes_s
    assert found.read_bytes_s
    storage = await open_bare(settings, StorageOptions())
    assert [item.key async for item in storage.list("")] == [], "nothing stays"
    await storage.aclose()


async def test_a_key_that_may_only_read_is_told_apart_right_by_right(server: SeaweedFS) -> None:
    found = await _examined(_s3(server, credentials=READER.written()))
    verdicts = _verdicts(found)
    assert verdicts["put"] is verdicts["multipart"] is Verdict.NO
    assert verdicts["list"] is Verdict.YES
    assert verdicts["get"] is Verdict.UNKNOWN
    assert found.first_error is not None
    assert "cannot write" in str(found.first_error)


async def test_a_bucket_with_versions_and_a_lock_is_told_and_works(server: SeaweedFS) -> None:
    bucket = f"locked-{uuid.uuid4().hex[:8]}"
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    async with server.client() as client:
        await client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        await client.put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
        )
    found = await _examined(_s3(server, identity=ADMIN, bucket=bucket))
    assert _verdicts(found) == dict.fromkeys(NEEDED, Verdict.YES)
    assert found.description.versioning == "on"
    assert found.description.object_lock == "on, governance for 1 days"


@asynccontextmanager
async def azure(**more: Any) -> AsyncIterator[StorageSettings]:
    azurite = shared_azurite()
    async with azurite.client():
        section = azurite.settings(f"check/{secrets.token_hex(4)}", **more)
        yield StorageSettings(type="azure", azure=section)


async def test_azure_tells_each_right_and_what_it_is() -> None:
    async with azure() as settings:
        found = await _examined(settings)
    assert _verdicts(found) == dict.fromkeys(NEEDED, Verdict.YES)
    facts = found.description
    assert facts.identity == "the key of the account tidelog"
    assert facts.credentials == "explicit"
    assert facts.tls == "no: requests go in clear"
    assert facts.clock_skew_s is not None
    assert abs(facts.clock_skew_s) < 10
    assert facts.encryption == "by the service"
    assert facts.versioning == facts.object_lock == "off"
    assert facts.public == "blocked"
    assert facts.warnings == ()


async def test_azure_tells_of_a_sas_token_what_it_allows_and_that_it_ends_soon() -> None:
    token = shared_azurite().sas("rcwl", lifetime_s=3600.0)
    async with azure(credentials={"sasToken": token}) as settings:
        found = await _examined(settings)
    verdicts = _verdicts(found)
    assert verdicts["put"] is verdicts["get"] is verdicts["list"] is Verdict.YES
    assert verdicts["delete"] is Verdict.NO
    assert found.first_error is not None
    assert "blobs/delete, or d in the SAS token" in found.first_error.hint
    assert "a SAS token of the account tidelog that allows rcwl until" in str(
        found.description.identity
    )
    assert any(
        "the credentials of the storage end in" in told for told in found.description.warnings
    )


async def test_gcs_tells_each_right_and_what_it_is() -> None:
    server = shared_fake_gcs()
    async with Front(server.url) as front:
        section = server.settings(f"check/{secrets.token_hex(4)}", endpointUrl=front.url)
        settings = StorageSettings(type="gcs", gcs=section)
        found = await _examined(settings, environment={"STORAGE_EMULATOR_HOST": front.url})
    assert _verdicts(found) == dict.fromkeys(NEEDED, Verdict.YES)
    facts = found.description
    assert facts.identity == "nobody: an emulator asks for no token"
    assert facts.tls == "no: requests go in clear"
    assert facts.clock_skew_s is not None
    assert abs(facts.clock_skew_s) < 10
    assert facts.versioning == facts.object_lock == "off"
    assert facts.encryption == "with keys of Google"


async def test_oss_tells_each_right_and_what_it_is() -> None:
    server = shared_aliyun()
    credentials = {**ALIYUN_AGENT.written(), "stsEndpointUrl": server.url}
    asked = {"sseAlgorithm": "KMS"}
    section = server.settings(credentials=credentials, serverSideEncryption=asked)
    server.tell("bucket", locked_days=30, default_encryption="AES256")
    try:
        found = await _examined(StorageSettings(type="oss", oss=section))
    finally:
        server.tell("bucket")
    verdicts = _verdicts(found)
    assert verdicts.pop("delete") is Verdict.UNKNOWN, "it is locked"
    assert set(verdicts.values()) == {Verdict.YES}
    facts = found.description
    assert facts.identity == f"acs:ram::1234567890123456:user/{ALIYUN_AGENT.access_key}"
    assert facts.region == "oss-eu-central-1"
    assert facts.object_lock == "on, locked, for 30 days"
    assert facts.versioning == "off"
    assert facts.encryption == "KMS"
    assert facts.public == "blocked"
    assert facts.warnings == ("the default of the bucket is AES256, weaker than KMS here",)
    assert found.first_error is None, "a lock is no fault"


async def test_oss_says_what_it_is_not_allowed_to_ask() -> None:
    server = shared_aliyun()
    key, secret = f"LTAI5t{secrets.token_hex(4)}", secrets.token_hex(8)
    server.tell("account", key=key, secret=secret, denied=["oss:GetBucket*", "oss:Abort*"])
    section = server.settings(credentials={"accessKeyID": key, "accessKeySecret": secret})
    found = await _examined(StorageSettings(type="oss", oss=section))
    assert _verdicts(found)["multipart"] is Verdict.YES
    assert _verdicts(found)["abort"] is Verdict.NO
    assert found.first_error is not None
    assert "allow oss:AbortMultipartUpload" in found.first_error.hint
    assert found.description.versioning == "not allowed to ask (oss:GetBucketInfo)"
    assert found.description.object_lock == "not allowed to ask (oss:GetBucketWorm)"


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def test_a_directory_tells_its_user_and_what_is_free(tmp_path: Path) -> None:
    section: dict[str, Any] = {"path": str(tmp_path)}
    settings = StorageSettings.model_validate({"type": "filesystem", "filesystem": section})
    found = await _examined(settings, 1 << 20)
    assert _verdicts(found) == dict.fromkeys(NEEDED - {"multipart", "abort"}, Verdict.YES)
    assert found.description.free_bytes
    assert not _files(tmp_path)


def test_the_bucket_of_the_tests_is_the_servers(server: SeaweedFS) -> None:
    assert server.settings("x").bucket == BUCKET
