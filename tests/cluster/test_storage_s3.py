"""A whole backup and restore through agents on S3, with a secret that nobody sees."""

from __future__ import annotations

import secrets
from pathlib import Path

import yaml

from tests.cluster.scene import Scene
from tests.support.servers.seaweedfs import AGENT, BUCKET, shared_seaweedfs


def test_a_backup_goes_to_s3_and_comes_back_whole(scene: Scene, tmp_path: Path) -> None:
    server = shared_seaweedfs()
    (tmp_path / "secret").write_text(AGENT.secret_key)
    section = {
        "region": "us-east-1",
        "endpointUrl": server.http,
        "credentials": {
            "accessKeyID": AGENT.access_key,
            "secret-access-key": {"file": str(tmp_path / "secret")},
        },
    }
    url = f"s3://{BUCKET}/cluster/{secrets.token_hex(4)}"
    written = yaml.safe_dump({"storage": {"url": url, "s3": section}})
    scene.ctl.ok("config", "--file", "-", stdin=written)
    before = scene.fill(megabytes=10)
    name = scene.backup()["name"]
    scene.client.drop_database("shop")
    scene.restore(name)
    assert scene.fingerprint() == before
    shown = scene.ctl.run("config").stdout + scene.ctl.run("logs").stdout
    stored = str(list(scene.client.admin.tidelogConfig.find()))
    logs = "".join(agent.log_text() for agent in scene.agents.all)
    assert AGENT.secret_key not in shown + stored + logs


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
