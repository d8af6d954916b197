"""A whole backup and restore through agents on S3, in a bucket with versions and a lock, with a
secret that nobody sees; and how a backup that was deleted there is brought back."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import yaml

from tests.cluster.scene import Scene
from tests.support.servers.seaweedfs import (
    ADMIN,
    AGENT,
    BUCKET,
    SeaweedFS,
    shared_seaweedfs,
)


def test_a_backup_goes_to_a_locked_bucket_is_deleted_undeleted_and_comes_back_whole(
    scene: Scene, tmp_path: Path
) -> None:
    """E6, C10–C12."""
    server = shared_seaweedfs()
    bucket = f"locked-{secrets.token_hex(4)}"
    asyncio.run(_make_locked(server, bucket))
    (tmp_path / "secret").write_text(ADMIN.secret_key)
    section = {
        "region": "us-east-1",
        "endpointUrl": server.http,
        "credentials": {
            "accessKeyID": ADMIN.access_key,
            "secret-access-key": {"file": str(tmp_path / "secret")},
        },
    }
    url = f"s3://{bucket}/cluster"
    written = yaml.safe_dump({"storage": {"url": url, "s3": section}})
    scene.ctl.ok("config", "--file", "-", stdin=written)
    before = scene.fill(megabytes=10)
    name = scene.backup()["name"]
    scene.client.drop_database("shop")
    scene.ctl.ok("delete-backup", name, "-y", "--wait")
    assert scene.ctl.ok("list")["snapshots"] == []
    assert asyncio.run(_undeleted(server, bucket)) > 10
    scene.ctl.ok("config", "--force-resync", "--wait")
    [back] = scene.ctl.ok("list")["snapshots"]
    assert (back["name"], back["status"]) == (name, "done")
    scene.ctl.ok("verify", name, "--deep", "--wait")
    scene.restore(name)
    assert scene.fingerprint() == before
    shown = scene.ctl.run("config").stdout + scene.ctl.run("logs").stdout
    stored = str(list(scene.client.admin.tidelogConfig.find()))
    logs = "".join(agent.log_text() for agent in scene.agents.all)
    assert ADMIN.secret_key not in shown + stored + logs


async def _make_locked(server: SeaweedFS, bucket: str) -> None:
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    async with server.client() as client:
        await client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        await client.put_object_lock_configuration(
            Bucket=bucket,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
        )


async def _undeleted(server: SeaweedFS, bucket: str) -> int:
    """As docs/storage/s3.md says it: the marks of deletion are deleted; answers how many."""
    async with server.client() as client:
        found = await client.list_object_versions(Bucket=bucket)
        marks = found.get("DeleteMarkers", [])
        for mark in marks:
            await client.delete_object(Bucket=bucket, Key=mark["Key"], VersionId=mark["VersionId"])
    return len(marks)


def test_a_secret_in_clear_is_refused_where_no_key_seals_it(scene: Scene) -> None:
    server = shared_seaweedfs()
    literal = {
        "storage": {
            "type": "s3",
            "s3": {"bucket": BUCKET, "endpointUrl": server.http, "credentials": AGENT.written()},
        }
    }
    refused = scene.ctl.run("config", "--file", "-", stdin=yaml.safe_dump(literal))
    assert refused.status == 2, str(refused)
    assert "in clear" in refused.value["error"]
    assert AGENT.secret_key not in str(refused)
    assert AGENT.secret_key not in str(list(scene.client.admin.tidelogConfig.find()))
