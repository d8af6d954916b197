"""`ctl verify --restore`: what a scratch mongod proves, what it finds, and that nothing remains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.operations.scratch.place import PREFIX, Place
from agent.operations.scratch.place import _servers_on as servers_on
from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet, find_mongod


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where servers may be started."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path, scratch: Path) -> Iterator[Scene]:
    """One node, its agent with a scratch directory, an empty repository."""
    extra = {
        "TIDELOG_VERIFY__SCRATCHDIR": str(scratch),
        "TIDELOG_VERIFY__MONGOD": str(find_mongod()),
    }
    with Agents(one_node, extra=extra) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


def stored(scene: Scene) -> dict[str, int]:
    """Every object of the repository with its size."""
    files = [path for path in scene.repository.rglob("*") if path.is_file()]
    return {str(path): path.stat().st_size for path in files}


def test_a_backup_is_proved_and_so_is_a_later_moment(scene: Scene, scratch: Path) -> None:
    scene.enable_pitr(1.0)
    scene.fill(10)
    name = scene.backup()["name"]
    scene.client.shop.later.insert_many({"_id": number} for number in range(7))
    at = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    scene.wait_covered((at.time, at.inc))
    before = stored(scene)
    done = scene.ctl.ok("verify", name, "--restore", "--wait", within_s=180)
    assert (done["backup"], done["level"], done["harmed"]) == (name, "proved", 0)
    assert done["recovery_s"] > 0
    own = scene.client.shop.list_collection_names()
    assert done["collections"] >= len(own) - 1, "all but the one that came later"
    assert done["hashes"]["shop"]
    later = scene.ctl.ok(
        *("verify", name, "--restore", "--time", f"{at.time},{at.inc}", "--wait"), within_s=180
    )
    assert later["documents"] == done["documents"] + 7
    assert later["hashes"]["shop"] == scene.client.shop.command("dbHash")["md5"]
    (listed,) = scene.ctl.ok("list")["snapshots"]
    assert (listed["verified"]["level"], listed["verified"]["harmed"]) == ("proved", 0)
    assert "PROVED in" in scene.ctl.run("list", out=None).stdout
    scene.ctl.ok("verify", "--wait")
    (listed,) = scene.ctl.ok("list")["snapshots"]
    assert listed["proved"]["recovery_s"] == later["recovery_s"], "a weaker look takes nothing away"
    assert listed["verified"].get("recovery_s") is None, "and claims nothing of a stronger one"
    added = [key for key in stored(scene).keys() - before.keys() if "/slices/" not in key]
    assert added == [], "a proof writes nothing to the repository"
    assert list(scratch.iterdir()) == []


def test_what_an_earlier_proof_hashed_otherwise_is_a_finding(scene: Scene) -> None:
    scene.client.shop.orders.insert_many({"_id": number} for number in range(5))
    name = scene.backup()["name"]
    scene.ctl.ok("verify", name, "--restore", "--wait", within_s=180)
    scene.client.admin.tidelogBackups.update_one(
        {"_id": name}, {"$set": {"proof.hashes.shop": "0" * 32}}
    )
    done = scene.ctl.run("verify", name, "--restore", "--wait", within_s=180)
    assert done.status == 1, str(done)
    assert "shop has the dbHash" in done.value["problems"][0]
    assert "HARMED" in scene.ctl.run("list", out=None).stdout


def test_a_proof_goes_on_after_its_agent_is_killed_and_leaves_no_server(
    scene: Scene, scratch: Path
) -> None:
    scene.fill(25)
    name = scene.backup()["name"]
    op_id = scene.ctl.ok("verify", name, "--restore")["op_id"]
    eventually(lambda: list(scratch.glob(f"{PREFIX}*/mongod.log")), 60)
    (path,) = scratch.glob(f"{PREFIX}*")
    (agent,) = scene.agents
    agent.kill()
    assert servers_on(path), "kill -9 of the agent leaves the server"
    pids = servers_on(path)
    agent.start()
    agent.wait_announced()
    done = scene.wait_done(op_id, within_s=180)
    assert done["result"]["harmed"] == 0
    eventually(lambda: list(scratch.iterdir()) == [], 30)
    assert not set(pids) & set(servers_on(path))


def test_without_a_scratch_directory_a_proof_is_refused_with_what_to_set(
    one_node: ReplicaSet, tmp_path: Path
) -> None:
    with Agents(one_node) as agents:
        scene = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        scene.open()
        scene.client.shop.orders.insert_one({"_id": 1})
        name = scene.backup()["name"]
        done = scene.ctl.run("verify", name, "--restore", "--wait")
    assert done.status == 3, str(done)
    assert "verify.scratchDir" in done.stderr + done.stdout


def test_a_directory_in_use_is_no_leftover(scratch: Path) -> None:
    place = Place(scratch)
    with place.made("one") as path:
        assert Place(scratch).sweep() == []
        assert path.is_dir()
    assert Place(scratch).sweep() == [path]
    stranger = scratch / f"{PREFIX}of-somebody-else"
    stranger.mkdir()
    assert place.sweep() == [], "what has no lock is not ours"
    assert stranger.is_dir()
