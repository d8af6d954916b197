"""Several storages: copies of one backup, each as good as the others, and one that is down."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.archive.layout import MARKER, owner_key
from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet

pytestmark = pytest.mark.timeout(240)

ELSEWHERE = "f" * 24


@pytest.fixture
def alone(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, one agent, and two storages: `main` and `second`."""
    with Agents(one_node) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "main")
        found.open()
        add_profile(found, "second", tmp_path / "second")
        yield found


def add_profile(scene: Scene, name: str, path: Path) -> Any:
    """A directory as a further storage."""
    path.mkdir(exist_ok=True)
    section = {"storage": {"type": "filesystem", "filesystem": {"path": str(path)}}}
    return scene.ctl.ok("profile", "add", name, "-", stdin=yaml.safe_dump(section))


def files(path: Path, prefix: str = "") -> dict[str, bytes]:
    """Every object below a directory."""
    return {
        found.relative_to(path).as_posix(): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file()
        and not found.name.startswith(".")
        and found.relative_to(path).as_posix().startswith(prefix)
    }


def snapshots(scene: Scene, *flags: str) -> dict[str, dict[str, Any]]:
    """What `list` shows, by name."""
    return {item["name"]: item for item in scene.ctl.ok("list", *flags)["snapshots"]}


def test_one_reading_makes_a_copy_on_each_storage_and_any_of_them_restores(alone: Scene) -> None:
    main, second = alone.repository, alone.repository.parent / "second"
    before = alone.fill(megabytes=10)
    made = alone.backup("--profile", "main", "--profile", "second")
    name = made["name"]
    checked = alone.ctl.ok("storage", "check", "--profile", "second", "--measure", "1MiB")
    assert [node["ok"] for node in checked["nodes"]] == [True]
    assert checked["nodes"][0]["write_bytes_s"] > 0
    assert [(c["profile"], c["status"]) for c in made["copies"]] == [
        ("main", "done"),
        ("second", "done"),
    ]
    assert files(main, "chunks/") == files(second, "chunks/") != {}
    assert snapshots(alone)[name]["profiles"] == ["main", "second"]
    assert list(snapshots(alone, "--profile", "second")) == [name]
    synced = alone.ctl.ok("profile", "sync", "--all", "--wait")
    assert synced["backups"] == 1, "with two copies"
    assert not [key for key in files(second) if "/journal/" in key]

    shutil.move(main, main.with_name("away"))
    alone.client.drop_database("shop")
    alone.restore(name)
    assert alone.fingerprint() == before, "restored from second, though main is down"

    shutil.move(main.with_name("away"), main)
    alone.ctl.ok("delete-backup", name, "--profile", "main", "-y", "--wait")
    assert not files(main, "chunks/")
    assert snapshots(alone)[name]["profiles"] == ["second"]
    alone.ctl.fails(3, "profile", "remove", "second", "-y")
    alone.client.drop_database("shop")
    alone.restore(name)
    assert alone.fingerprint() == before
    alone.ctl.ok("delete-backup", name, "-y", "--wait")
    assert not files(second, "chunks/")
    assert snapshots(alone) == {}
    alone.ctl.ok("profile", "remove", "second", "-y")
    assert [row["name"] for row in alone.ctl.ok("profile", "list")] == ["main"]


def test_a_storage_that_is_down_costs_its_own_copy_only_and_is_seen(alone: Scene) -> None:
    second = alone.repository.parent / "second"
    alone.fill(megabytes=5)
    alone.backup("--profile", "second")
    shutil.rmtree(second)
    result = alone.ctl.run(
        *("backup", "--wait", "--profile", "second", "--profile", "main"), within_s=120
    )
    assert result.status == 1, str(result)
    name = result.value["name"]
    assert f"the backup {name} is complete on main, but not on second" in result.value["error"]
    assert snapshots(alone)[name]["profiles"] == ["main"]
    described = alone.ctl.ok("describe-backup", name)
    assert {c["profile"]: c["status"] for c in described["copies"]} == {
        "main": "done",
        "second": "failed",
    }
    alone.client.drop_database("shop")
    alone.restore(name)
    assert alone.ctl.run("backup", "--wait", "--profile", "second", within_s=120).status == 1
    assert alone.ctl.run("storage", "check", "--profile", "second").status == 1
    verdicts = alone.ctl.ok("config", "--check")["storage"]
    assert all(verdict["ok"] for verdict in verdicts), "main is well"


def test_a_backup_elsewhere_is_restored_to_a_time_with_the_slices_of_main(alone: Scene) -> None:
    alone.enable_pitr(2.0)
    alone.client.shop.orders.insert_many([{"_id": i} for i in range(50)])
    name = alone.backup("--profile", "second")["name"]
    alone.client.shop.orders.insert_many([{"_id": i} for i in range(50, 90)])
    at = alone.client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]
    before = alone.fingerprint()
    alone.wait_covered((at.time, at.inc))
    alone.client.shop.orders.delete_many({})
    alone.restore("--time", f"{at.time},{at.inc}", "--base-snapshot", name)
    assert alone.fingerprint() == before


def test_what_was_stored_is_not_where_a_profile_points_now(alone: Scene) -> None:
    """The settings of `main` are changed while PITR is on: a new run begins in the new repository,
    backups of the old one are out of reach until a profile leads there again."""
    alone.enable_pitr(2.0)
    alone.client.shop.orders.insert_one({"_id": 1})
    name = alone.backup()["name"]
    (first,) = alone.runs()
    moved = alone.repository.with_name("moved")
    moved.mkdir()
    alone.ctl.configure_filesystem(moved)
    eventually(lambda: len(alone.runs()) == 2, 40.0, describe=alone.agents.log_tails)
    assert {run["repository_id"] for run in alone.runs()} > {first["repository_id"]}
    found = snapshots(alone)[name]
    assert (found["profile"], found["available"]) == (None, False)
    assert alone.ctl.ok("list")["pitr"]["ranges"] == []
    assert "not in the repository of main" in alone.ctl.fails(
        4, "restore", name, "-y", "--wait", within_s=90
    )
    alone.backup()
    eventually(lambda: alone.ctl.ok("list")["pitr"]["ranges"], 30.0)
    add_profile(alone, "old", alone.repository)
    assert snapshots(alone)[name]["profiles"] == ["old"]
    alone.restore(name)


def test_the_repository_of_another_cluster_is_read_and_adopted_but_not_written(
    alone: Scene,
) -> None:
    main = alone.repository
    name = alone.backup()["name"]
    (main / owner_key(1)).parent.mkdir()
    (main / owner_key(1)).write_text(f'{{"cluster_id": "{ELSEWHERE}", "former": "?"}}')
    alone.ctl.ok("config", "--set", "pitr.enabled=true")
    assert "belongs to another cluster" in alone.ctl.fails(3, "backup", "--wait", within_s=90)

    def told() -> str:
        return str(alone.ctl.ok("status", "-s", "pitr")["pitr"]["error"])

    eventually(lambda: "belongs to another cluster" in told(), 40.0, describe=told)
    assert alone.ctl.ok("status", "-s", "backups")["backups"]["profiles"][0]["foreign"]
    alone.restore(name)

    before = files(main, MARKER)
    plan = alone.ctl.ok("storage", "adopt", "--dry-run")
    assert plan["former_owner"] == ELSEWHERE
    assert files(main, "owners/").keys() == {owner_key(1)}
    alone.ctl.fails(3, "storage", "adopt")
    alone.ctl.ok("storage", "adopt", "-y", "--wait")
    assert files(main, MARKER) == before, "the marker is written once"
    alone.backup()
    eventually(lambda: told() == "None", 60.0, describe=told)
    assert alone.ctl.ok("storage", "adopt", "-y")["status"] == "not needed"
