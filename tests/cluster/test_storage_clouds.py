"""A whole backup, archive and restore to a moment through agents on Azure and on GCS."""

from __future__ import annotations

import asyncio
import secrets
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.scene import Scene
from tests.support.servers.azurite import CONTAINER, KEY, shared_azurite
from tests.support.servers.fake_gcs import BUCKET, shared_fake_gcs
from tests.support.servers.tokens import TokenService, private_key


def azure(directory: Path) -> tuple[dict[str, Any], str]:
    server = shared_azurite()

    async def make_container() -> None:
        async with server.client():
            pass

    asyncio.run(make_container())
    (directory / "secret").write_text(KEY)
    section = {"credentials": {"key": {"file": str(directory / "secret")}}}
    url = f"{server.url}/{CONTAINER}/cluster/{secrets.token_hex(4)}"
    return {"storage": {"url": url, "azure": section}}, KEY


def gcs(directory: Path) -> tuple[dict[str, Any], str]:
    """With the JSON of a service account; its tokens end again and again."""
    server = shared_fake_gcs()
    service = TokenService()
    service.lifetime_s = 4
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(service.__aenter__(), loop).result(timeout=10)
    (directory / "account.json").write_text(service.google_account())
    credentials = {"applicationCredentials": {"file": str(directory / "account.json")}}
    section = {"endpointUrl": server.url, "credentials": credentials}
    url = f"gs://{BUCKET}/cluster/{secrets.token_hex(4)}"
    return {"storage": {"url": url, "gcs": section}}, private_key().splitlines()[1]


@pytest.mark.parametrize("cloud", [azure, gcs])
def test_a_moment_comes_back_from_a_cloud(scene: Scene, tmp_path: Path, cloud: Any) -> None:
    written, secret = cloud(tmp_path)
    scene.ctl.ok("config", "--file", "-", stdin=yaml.safe_dump(written))
    scene.enable_pitr()
    scene.fill(megabytes=10)
    scene.backup()
    scene.client.shop.late.insert_many([{"_id": number} for number in range(500)])
    before = scene.fingerprint()
    hello = scene.client.admin.command("hello")
    at = hello["lastWrite"]["majorityOpTime"]["ts"]
    scene.client.drop_database("shop")
    scene.wait_covered((at.time, at.inc))
    scene.restore("--time", f"{at.time},{at.inc}")
    assert scene.fingerprint() == before
    shown = scene.ctl.run("config").stdout + scene.ctl.run("logs").stdout
    logs = "".join(agent.log_text() for agent in scene.agents.all)
    assert secret not in shown + logs
