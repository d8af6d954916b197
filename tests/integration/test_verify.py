"""`ctl verify` on a real repository: what is sound is said to be, each kind of harm is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.scene import Scene, chunk_keys, flip_byte, truncate
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


def test_a_sound_repository_is_read_once_and_remembered(scene: Scene) -> None:
    scene.fill(10)
    name = scene.backup()["name"]
    looked = scene.ctl.ok("verify", "--wait")
    assert (looked["level"], looked["backups"], looked["harmed"]) == ("present", 1, 0)
    assert looked["bytes_read"] == 0
    told = scene.ctl.run("verify", "--wait", out=None).stdout
    assert "there and of its size" in told, "no more than was looked at"
    first = scene.ctl.ok("verify", name, "--deep", "--wait")
    stored = sum(item["size_bytes"] for item in scene.manifest(name)["objects"])
    assert first["bytes_read"] >= stored
    again = scene.ctl.ok("verify", "--deep", "--wait")
    assert (again["bytes_read"], again["harmed"]) == (0, 0)
    assert again["not_read_again"] > 0
    anew = scene.ctl.ok("verify", "--deep", "--max-age", "0", "--wait")
    assert anew["bytes_read"] == first["bytes_read"]
    (listed,) = scene.ctl.ok("list")["snapshots"]
    assert (listed["verified"]["level"], listed["verified"]["harmed"]) == ("read", 0)
    assert listed["verified"]["at"]


HARM: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "flipped": (flip_byte, True),
    "truncated": (truncate, False),
    "missing": (Path.unlink, False),
}


@pytest.mark.parametrize("harm", list(HARM))
def test_a_harmed_chunk_names_the_backups_it_harms_and_no_other(scene: Scene, harm: str) -> None:
    scene.fill(5)
    harmed, sound = scene.backup()["name"], scene.backup()["name"]
    key = sorted(chunk_keys(scene.manifest(harmed)))[0]
    how, needs_reading = HARM[harm]
    how(scene.repository / key)
    if needs_reading:
        scene.ctl.ok("verify", "--wait")
    done = scene.ctl.run("verify", "--deep", "--wait")
    assert done.status == 1, str(done)
    assert [item["object"] for item in done.value["problems"]] == [key]
    assert done.value["harmed_backups"] == [{"name": harmed, "harmed": 1}]
    listed = {
        item["name"]: item["verified"]["harmed"] for item in scene.ctl.ok("list")["snapshots"]
    }
    assert listed == {harmed: 1, sound: 0}
    assert "HARMED" in scene.ctl.run("list", out=None).stdout
    assert key in str(scene.ctl.ok("describe-backup", harmed)["verdict"]["problems"])


def test_archived_oplog_that_is_gone_or_changed_names_the_moments_it_harms(scene: Scene) -> None:
    scene.enable_pitr(1.0)
    scene.backup()
    for _ in range(4):
        scene.wait_covered(_write(scene))
    scene.ctl.ok("verify", "--deep", "--wait")
    (run,) = scene.runs()
    slices = [key for key in scene.slices() if f"{run['start']['T']:010d}" <= key.split("/")[-1]]
    flip_byte(scene.repository / slices[-2])
    done = scene.ctl.run("verify", "--deep", "--max-age", "0", "--wait")
    assert done.status == 1, str(done)
    assert slices[-2] in {item["object"] for item in done.value["problems"]}
    (lost,) = done.value["harmed_ranges"]
    assert lost["replset"] == scene.replset.name
    (scene.repository / slices[-2]).unlink()
    done = scene.ctl.run("verify", "--wait")
    assert done.status == 1, str(done)
    assert done.value["harmed_ranges"]


def test_oplog_that_was_archived_elsewhere_is_not_harmed_here(scene: Scene, tmp_path: Path) -> None:
    scene.enable_pitr(1.0)
    scene.wait_covered(_write(scene))
    other = tmp_path / "other"
    other.mkdir()
    scene.ctl.configure_filesystem(other)
    eventually(lambda: len(scene.runs()) == 2, 30, describe=scene.agents.log_tails)
    scene.wait_covered(_write(scene))
    looked = scene.ctl.ok("verify", "--wait")
    assert (looked["harmed"], looked["harmed_ranges"]) == (0, [])
    assert looked["objects"] > 0


def _write(scene: Scene) -> tuple[int, int]:
    scene.client.shop.orders.insert_one({})
    at = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    return at.time, at.inc


def test_a_backup_that_does_not_exist_is_not_found(scene: Scene) -> None:
    scene.ctl.fails(4, "verify", "2020-01-01T00:00:00Z")


def _bytes_done(scene: Scene, op_id: str) -> int:
    return sum(part["progress"]["bytes_done"] for part in scene.operation(op_id)["parts"])


def test_a_verification_shows_progress_holds_nothing_up_and_can_be_cancelled(scene: Scene) -> None:
    scene.fill(5)
    first, second = scene.backup()["name"], scene.backup()["name"]
    scene.arm("verify.recorded=sleep:60", scene.replset.primary())
    op_id = scene.begin("verify", "--deep")
    eventually(lambda: _bytes_done(scene, op_id) > 5 << 20, 30)
    gone = scene.ctl.ok("delete-backup", second, "-y", "--wait")
    assert (gone["status"], scene.operation(op_id)["state"]) == ("done", "running")
    assert scene.ctl.ok("cancel", op_id, "--wait")["status"] == "cancelled"
    assert [one["name"] for one in scene.ctl.ok("list")["snapshots"]] == [first]
    assert scene.ctl.ok("verify", "--deep", "--wait")["harmed"] == 0


def test_what_is_deleted_while_it_is_looked_at_is_not_harmed(scene: Scene) -> None:
    scene.fill(5)
    first, second = scene.backup()["name"], scene.backup()["name"]
    scene.arm("verify.recorded=sleep:3", scene.replset.primary())
    op_id = scene.begin("verify")
    eventually(lambda: _bytes_done(scene, op_id), 30)
    scene.ctl.ok("delete-backup", second, "-y", "--wait")
    done = scene.wait_done(op_id)["result"]
    assert (done["harmed"], done["harmed_backups"], done["backups"]) == (0, [], 1)
    assert [one["name"] for one in scene.ctl.ok("list")["snapshots"]] == [first]
