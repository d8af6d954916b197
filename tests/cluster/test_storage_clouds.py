"""A whole backup, archive and restore to a moment through agents on Azure and on GCS, while a fifth
of all requests fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.cluster.scene import Scene
from tests.support.clouds import CLOUDS, Around
from tests.support.servers.background import Background


@pytest.mark.parametrize("name", ["azure", "gcs"])
def test_a_moment_comes_back_from_a_cloud_of_which_a_fifth_fails(
    scene: Scene, tmp_path: Path, name: str
) -> None:
    with Background() as background:
        cloud = CLOUDS[name](Around(tmp_path, background, by_proxy=True))
        written = yaml.safe_dump({"storage": cloud.storage})
        scene.ctl.ok("config", "--file", "-", stdin=written)
        cloud.fail(0.2)
        scene.bring_back_a_moment()
        shown = scene.ctl.run("config").stdout + scene.ctl.run("logs").stdout
        logs = "".join(agent.log_text() for agent in scene.agents.all)
        assert "storage.retry" in logs
        assert cloud.secret not in shown + logs
