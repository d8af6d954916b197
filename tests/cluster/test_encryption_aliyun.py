"""`ctl encryption` with a key of Alibaba Cloud KMS, through agents: used, disabled, told, used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet
from tests.support.servers.aliyun.server import AGENT, shared_aliyun

AROUND = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": AGENT.access_key,
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": AGENT.secret_key,
}


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, whose credentials are around it, and an empty repository."""
    with Agents(one_node, extra=AROUND) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


def test_backups_are_encrypted_and_a_disabled_key_is_told(scene: Scene) -> None:
    """D5, D9, D15: nothing is touched where the key cannot be used; it goes on when it is back."""
    server = shared_aliyun()
    key_id = server.tell("key", alias="alias/tidelog")
    given = ("--key-id", "alias/tidelog", "--region", "eu-central-1", "--endpoint-url", server.url)
    done = scene.ctl.ok("encryption", "enable", "--provider", "aliyun-kms", *given, "-y", "--wait")
    (kek,) = done["policy"]["keks"]
    assert (kek["provider"], kek["alias"]) == ("aliyun-kms", "alias/tidelog")
    assert kek["key"].endswith(f"key/{key_id}")
    before = scene.fill(megabytes=2)
    name = scene.backup()["name"]
    server.tell("key-state", id=key_id, state="Disabled")
    scene.client.drop_database("shop")
    after = scene.fingerprint()
    refused = scene.try_restore(name)
    assert refused.status != 0
    told = refused.stdout + refused.stderr
    assert key_id in told
    assert "disabled" in told
    assert scene.fingerprint() == after
    server.tell("key-state", id=key_id, state="Enabled")
    scene.restore(name)
    assert scene.fingerprint() == before
    written = scene.ctl.run("encryption", "status").stdout + scene.ctl.run("logs").stdout
    assert AGENT.secret_key not in written
