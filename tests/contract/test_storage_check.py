"""`ctl storage check` on real servers: what each right is found to be, and what the store says."""

from __future__ import annotations

import secrets
import uuid
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock
from agent.storage.examining import Examination, examine
from agent.storage.registry import StorageOptions, open_bare
from agent.wire.storage_reports import Verdict
from agent.wire.storage_settings import StorageSettings
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


async def _examined(settings: StorageSettings, measure_bytes: int = 0) -> Examination:
    storage = await open_bare(settings, StorageOptions(node="db1:27017"))
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
