"""What went wrong with other backup systems, told again: here it cannot. See docs/stories.md.

One node and its agent. Stories that other tests tell bear their marker there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.compare import assert_same
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.leftovers import TERMINAL, check_quiet
from tests.support.mongod import ReplicaSet

RECOVERED_WITHIN_S = 60.0


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent and an empty repository."""
    with Agents(one_node) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


@pytest.mark.story("F1", "PBM-1538")
def test_a_backup_whose_oplog_was_not_stored_is_not_done(scene: Scene) -> None:
    scene.fill(5)
    scene.arm("oplog.slice_stored=permanent,snapshot.catalogued=sleep:2", scene.replset.primary())
    op_id = scene.begin("backup")
    eventually(lambda: scene.operation(op_id)["state"] == "running", 30.0)
    scene.client.shop.small0.update_many({}, {"$inc": {"n": 1}})
    found = scene.wait_over(op_id)
    assert found["state"] == "failed", scene.describe(op_id)
    assert "oplog.slice_stored" in found["error"]["message"]
    assert scene.ctl.ok("list")["snapshots"] == []
    assert not list(scene.repository.glob("backups/*/backup.json"))
    assert scene.backup()["status"] == "done"


@pytest.mark.story("F6", "PBM-1687")
def test_two_backups_started_at_once_do_not_stop_slicing(scene: Scene) -> None:
    scene.fill(5)
    scene.backup()
    scene.enable_pitr(1.0)
    both = [_started(scene, "backup") for _ in range(2)]
    statuses = sorted(one.wait(RECOVERED_WITHIN_S) for one in both)
    assert statuses in ([0, 3], [0, 0]), "each is begun, or refused with the one in its way"
    _check_slicing(scene)
    _check_all_over(scene)


@pytest.mark.story("F7", "PBM-1488", "PBM-1326")
def test_a_backup_that_fails_does_not_stop_slicing(scene: Scene) -> None:
    scene.fill(5)
    scene.backup()
    scene.arm("snapshot.manifest_written=permanent", scene.replset.primary())
    scene.enable_pitr(1.0)
    assert scene.wait_over(scene.begin("backup"))["state"] == "failed"
    _check_slicing(scene)
    assert scene.backup()["status"] == "done"


@pytest.mark.story("F8", "operator#1463")
def test_the_cluster_is_backed_up_again_after_an_agent_was_killed_in_a_restore(
    scene: Scene,
) -> None:
    expected = scene.fill(5)
    name = scene.backup()["name"]
    armed = scene.arm("restore.chunk_loaded=kill", scene.replset.primary())
    op_id = scene.begin("restore", name, "-y")
    died = scene.wait_died(armed)
    # Whoever asks meanwhile is told at once what is in the way, and does not wait for ever.
    assert op_id in scene.ctl.fails(3, "backup", "--wait")
    died.start()
    assert scene.wait_over(op_id, RECOVERED_WITHIN_S)["state"] == "done"
    assert_same(expected, scene.fingerprint())
    assert scene.backup()["status"] == "done"
    check_quiet(scene.client.admin, [scene.client])


@pytest.mark.story("operator#2007")
def test_a_backup_nobody_begins_holds_up_no_other(scene: Scene) -> None:
    """No agent runs: it stays requested, waiting for it ends when the caller says, and it can be
    taken back; the next in line is carried out when an agent is there again."""
    scene.fill(5)
    scene.agents.stop()
    stuck = scene.begin("backup")
    waiting = scene.ctl.run("backup", "--queue", "--wait", "--wait-time", "3s")
    assert waiting.status == 6, str(waiting)
    assert scene.operation(stuck)["state"] == "requested"
    scene.ctl.ok("cancel-backup")
    scene.agents.start()
    assert scene.wait_over(stuck)["state"] == "cancelled"
    queued = scene.client.admin.tidelogOperations.find_one({"_id": {"$ne": stuck}})
    assert queued is not None
    scene.wait_done(queued["_id"])


@pytest.mark.story("operator#2317")
def test_a_backup_and_a_restore_asked_for_at_once_both_come_to_an_end(scene: Scene) -> None:
    expected = scene.fill(5)
    name = scene.backup()["name"]
    scene.client.shop.large0.delete_many({})
    both = [
        _started(scene, "restore", name, "-y", "--queue", "--wait"),
        _started(scene, "backup", "--queue", "--wait"),
    ]
    assert [one.wait(2 * RECOVERED_WITHIN_S) for one in both] == [0, 0]
    assert_same(expected, scene.fingerprint())
    _check_all_over(scene)


def _started(scene: Scene, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        scene.ctl.command(*arguments), env=scene.ctl.environment, stdout=subprocess.DEVNULL
    )


def _check_slicing(scene: Scene) -> None:
    """What is written now is archived soon, in one run without a gap."""
    scene.client.shop.sliced.insert_one({"x": 1})
    last = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    scene.wait_covered((last.time, last.inc), RECOVERED_WITHIN_S)
    assert scene.gaps() == []
    assert len(scene.runs()) == 1


def _check_all_over(scene: Scene) -> None:
    operations = scene.client.admin.tidelogOperations
    eventually(lambda: set(operations.distinct("state")) <= TERMINAL, RECOVERED_WITHIN_S)
    assert set(operations.distinct("state")) == {"done"}
