"""A whole backup, archive and restore to a moment through agents on OSS, with a role whose sessions
end several times meanwhile, in a bucket whose retention policy lets nothing be deleted."""

from __future__ import annotations

import secrets
from pathlib import Path

import yaml

from tests.cluster.scene import Scene
from tests.support.servers.aliyun.oss import BUCKET, REGION
from tests.support.servers.aliyun.server import NOBODY, ROLE, shared_aliyun


def test_a_moment_comes_back_from_oss_by_sessions_that_end_meanwhile(
    scene: Scene, tmp_path: Path
) -> None:
    """A1, A11: the key itself may do nothing but assume the role. E6: nothing needs a deletion but
    one that was asked for, and that is refused with its reason."""
    server = shared_aliyun()
    (tmp_path / "secret").write_text(NOBODY.secret_key)
    section = {
        "region": REGION,
        "endpointUrl": server.url,
        "credentials": {
            "accessKeyID": NOBODY.access_key,
            "accessKeySecret": {"file": str(tmp_path / "secret")},
            "roleArn": ROLE,
            "sessionName": "pbm-backup-session",
            "stsEndpointUrl": server.url,
        },
        "serverSideEncryption": {"sseAlgorithm": "KMS", "kmsMasterKeyID": "key-1"},
    }
    url = f"oss://{BUCKET}/cluster/{secrets.token_hex(4)}"
    server.tell("lifetime", seconds=8)
    server.tell("bucket", locked_days=30)
    server.tell("seen")
    try:
        written = yaml.safe_dump({"storage": {"url": url, "oss": section}})
        scene.ctl.ok("config", "--file", "-", stdin=written)
        scene.bring_back_a_moment()
        part = scene.ctl.ok("backup", "--ns", "shop.late", "--wait")["name"]
        refused = scene.ctl.run("delete-backup", part, "-y", "--wait")
        assert "FileImmutable" in str(refused.value), str(refused)
        assert "when its retention ends" in str(refused.value), str(refused)
        kept = {one["name"]: one["status"] for one in scene.ctl.ok("list")["snapshots"]}
        assert kept[part] == "done", "nothing of it was touched"
    finally:
        server.tell("lifetime", seconds=3600)
        server.tell("bucket")
    seen = server.tell("seen")
    names = [each["RoleSessionName"] for each in seen["rpc"]]
    assert len(names) > 3
    assert set(names) == {"pbm-backup-session"}
    made = [each for each in seen["oss"] if "x-oss-meta-tidelog-put" in each]
    assert made
    assert {each["x-oss-server-side-encryption-key-id"] for each in made} == {"key-1"}
    shown = scene.ctl.run("config").stdout + scene.ctl.run("logs").stdout
    stored = str(list(scene.client.admin.tidelogConfig.find()))
    logs = "".join(agent.log_text() for agent in scene.agents.all)
    assert NOBODY.secret_key not in shown + stored + logs
