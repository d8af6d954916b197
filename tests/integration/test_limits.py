"""`ctl limit` on a running agent: the rate holds, and changes while a backup runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.operations.backup.reading import BATCH_BYTES
from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, an empty repository."""
    with Agents(one_node) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


def test_a_backup_keeps_its_rate_and_follows_a_change(scene: Scene) -> None:
    scene.fill(25)
    size = scene.client.shop.command("dbStats")["dataSize"]
    shown = scene.ctl.ok("limit", "set", "--read", "3MB/s")
    assert shown["now"]["read_bytes_per_s"] == 3_000_000
    begun = time.monotonic()
    scene.backup()
    took_s = time.monotonic() - begun
    assert took_s >= 0.9 * size / 3e6
    assert took_s <= 1.1 * size / 3e6 + 20.0, "the rest, on a busy machine"
    op_id = scene.begin("backup")
    eventually(lambda: scene.operation(op_id)["state"] == "running", 30.0)
    scene.ctl.ok("limit", "clear")
    begun = time.monotonic()
    scene.wait_done(op_id)
    assert time.monotonic() - begun < 0.7 * size / 3e6


def test_a_restore_keeps_its_rate_and_equals_its_source(scene: Scene) -> None:
    before = scene.fill(15)
    size = scene.client.shop.command("dbStats")["dataSize"]
    name = scene.backup()["name"]
    scene.client.drop_database("shop")
    scene.ctl.ok("limit", "set", "--restore", "3MB/s", "--network", "50MB/s")
    begun = time.monotonic()
    scene.restore(name)
    # A piece passes when nothing is owed, so what the last one owes is nobody's to wait for.
    assert time.monotonic() - begun >= 0.9 * (size - BATCH_BYTES) / 3e6
    assert scene.fingerprint() == before


def test_windows_are_set_shown_and_replaced(scene: Scene) -> None:
    scene.ctl.ok("limit", "set", "--network", "5MB/s")
    shown = scene.ctl.ok("limit", "set", "--read", "1MB/s", "--window", "0:00-23:59")
    assert shown["windows"][0]["between"] == "00:00-23:59"
    shown = scene.ctl.ok("limit", "set", "--read", "2MB/s", "--window", "00:00-23:59")
    assert [one["read_bytes_per_s"] for one in shown["windows"]] == [2_000_000]
    assert shown["limits"]["network_bytes_per_s"] == 5_000_000
    assert "network: 5MB/s" in scene.ctl.run("limit", "show", out=None).stdout
    assert "no window of time" in scene.ctl.fails(
        2, "limit", "set", "--read", "1MB", "--window", "soon"
    )
    scene.ctl.fails(2, "limit", "set", "--read", "0")
