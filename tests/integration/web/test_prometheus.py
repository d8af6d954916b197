"""A real Prometheus scrapes a real agent: silent while all is well, and told of what breaks.

Which alert each fault has, and that all are silent in a good run, is `test_alerts`; here is that
what agents expose reaches the rules through a scrape, for the faults that can be made in a minute.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import Scene, chunk_keys, truncate
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet
from tests.support.mongod.ports import free_port
from tests.support.prometheus import Prometheus, prometheus

TOKEN = "read-only"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path, port: int) -> Iterator[Scene]:
    extra = {"TIDELOG_LISTEN": f"127.0.0.1:{port}", "TIDELOG_WEB__TOKEN": TOKEN}
    with Agents(one_node, extra=extra) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


@pytest.fixture
def watching(scene: Scene, tmp_path: Path, port: int) -> Iterator[Prometheus]:
    with prometheus(tmp_path / "prometheus", [f"127.0.0.1:{port}"], TOKEN) as found:
        yield found


def told(watching: Prometheus, *alerts: str) -> None:
    """They fire, each at the second evaluation that sees its fault (a third by chance of when the
    second of the clock is)."""
    watching.wait(alerts, 60)
    waited = {alert: watching.waited_evaluations(alert) for alert in alerts}
    assert all(count <= 2 for count in waited.values()), waited


def change(scene: Scene, *settings: str) -> None:
    scene.ctl.ok("config", *(part for one in settings for part in ("--set", one)))


def test_what_breaks_is_told_and_what_is_mended_falls_silent(
    scene: Scene, watching: Prometheus
) -> None:
    (agent,) = scene.agents.all
    scene.fill(1)
    scene.enable_pitr(1.0)
    told(watching, "TidelogNotRestorable", "TidelogBaseMissing")
    name = scene.backup()["name"]
    scene.client.shop.orders.insert_one({"_id": 1})
    watching.wait_silent()

    aside = scene.repository.with_name("aside")
    scene.repository.rename(aside)
    scene.client.shop.orders.insert_one({"_id": 2})
    hook = "notify.webhooks.oncall"
    url = f"{hook}.url=http://127.0.0.1:{free_port()}/"
    change(scene, "notify.maxAge=1s", url, f"{hook}.events=success,failure")
    assert scene.ctl.run("backup", "--wait").status in (1, 3)
    told(
        watching,
        "TidelogArchivingError",
        "TidelogBackupFailed",
        "TidelogBackupTooOld",
        "TidelogStorageFailing",
        "TidelogStorageUnusable",
        "TidelogWebhookFailing",
    )
    aside.rename(scene.repository)
    scene.ctl.ok("config", "--unset", hook, "--set", "notify.maxAge=1d")

    path = scene.repository / sorted(chunk_keys(scene.manifest(name)))[0]
    shutil.copy(path, aside)
    truncate(path)
    assert scene.ctl.run("verify", "--wait").status == 1
    change(scene, f"pitr.priority={{{agent.node.host}: 0}}")
    told(watching, "TidelogBackupHarmed", "TidelogNobodyArchives")
    shutil.copy(aside, path)
    scene.ctl.ok("config", "--unset", "pitr.priority")
    scene.ctl.ok("verify", "--wait")

    scene.backup()
    # How often a webhook failed is counted over five minutes.
    watching.wait_silent(60, but={"TidelogWebhookFailing"})

    agent.kill()
    told(watching, "TidelogAgentDown", "TidelogAllAgentsDown")
    agent.start()
    agent.wait_announced()
