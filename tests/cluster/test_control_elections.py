"""The control replica set while operations run on it: an election in each state, and a primary that
is lost with its last writes, which are rolled back.

What an agent was told is done has a majority and stays. What it wrote and was never told of may be
gone, or not; whoever leads next finds the one or the other, and both lead to the same end.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.cluster.scene import Scene, note
from tests.support.compare import assert_same
from tests.support.crashes import IN_FULL
from tests.support.eventually import eventually
from tests.support.leftovers import check_quiet, sweep, unnamed
from tests.support.mongod.replset import Client
from tests.support.rollback import roll_back

pytestmark = [pytest.mark.timeout(300), IN_FULL]

STATES = ("electing", "preparing", "running", "publishing")
ENDED_WITHIN_S = 60.0


def test_operations_outlive_an_election_in_each_of_their_states(scene: Scene) -> None:
    expected = scene.fill(5)
    names = []
    for hit, state in enumerate(STATES, 1):
        found = _elected_in(scene, state, hit, "backup")
        names.append(found["name"])
    for hit, state in enumerate(STATES[1:], 2):
        scene.client.shop.large0.delete_many({"n": hit})
        _elected_in(scene, state, hit, "restore", names[hit - 1], "-y")
        assert_same(expected, scene.fingerprint())
    _check_published(scene, names)
    note(
        f"an election in each of {len(STATES)} states of backups and {len(STATES) - 1} of restores"
    )


def _elected_in(scene: Scene, state: str, hit: int, *command: str) -> dict[str, Any]:
    scene.arm(f"operation.transitioned=sleep:4@{hit}", *scene.replset.nodes)
    op_id = scene.begin(*command)
    eventually(lambda: scene.operation(op_id)["state"] == state, 30.0, every_s=0.1)
    scene.replset.step_down()
    found = scene.wait_over(op_id, ENDED_WITHIN_S)
    assert found["state"] == "done", scene.describe(op_id)
    _check_history(found)
    scene.replset.wait_healthy()
    return found


@pytest.mark.parametrize(
    ("point", "is_written"),
    [
        ("operation.transitioned=sleep:5@2", "running"),
        ("backup.published=sleep:5", "listed"),
    ],
)
def test_an_operation_whose_last_write_rolls_back_comes_to_the_same_end(
    scene: Scene, point: str, is_written: str
) -> None:
    """The lead sleeps while its primary is cut off from the others, then writes what only that one
    has. It dies, the others know nothing of the write, and it is made again: once."""
    scene.fill(5)
    expected = _hashes(scene)
    scene.arm(point, *scene.replset.nodes)
    op_id = scene.begin("backup")
    wanted = "preparing" if is_written == "running" else "publishing"
    eventually(lambda: scene.operation(op_id)["state"] == wanted, 30.0, every_s=0.05)
    if is_written == "listed":
        eventually(lambda: list(scene.repository.glob("backups/*/backup.json")), 30.0)
    written = threading.Event()

    def while_alone(primary: Client) -> None:
        def is_there() -> bool:
            if is_written == "listed":
                return primary.admin.tidelogBackups.count_documents({}) == 1
            found = primary.admin.tidelogOperations.find_one({"_id": op_id})
            return found is not None and found["state"] == is_written

        eventually(is_there, 20.0, every_s=0.05, describe=scene.agents.log_tails)
        written.set()

    lost = roll_back(scene.replset, scene.replset.primary(), "strange", while_alone=while_alone)
    assert written.is_set()
    found = scene.wait_over(op_id, ENDED_WITHIN_S)
    assert found["state"] == "done", scene.describe(op_id)
    _check_history(found)
    _check_published(scene, [found["name"]])
    scene.client.drop_database("shop")
    scene.restore(found["name"], "--ns", "shop.*")
    assert _hashes(scene) == expected
    note(f"{lost} writes and the lead's own rolled back at {point}")


def _hashes(scene: Scene) -> dict[str, str]:
    found: dict[str, str] = scene.client.shop.command("dbHash")["collections"]
    return found


def _check_history(found: dict[str, Any]) -> None:
    """Each epoch of the lead is one node's, they rise, and each state was entered once."""
    own = [entry for entry in found["history"] if not entry.get("replset")]
    led = [(entry["epoch"], entry.get("node")) for entry in own if entry["state"] == "led"]
    assert len({epoch for epoch, _ in led}) == len(set(led)), led
    assert [epoch for epoch, _ in led] == sorted(epoch for epoch, _ in led), led
    entered = [entry["state"] for entry in own if entry["state"] in (*STATES, "done")]
    assert entered == [state for state in (*STATES, "done") if state in entered], entered


def _check_published(scene: Scene, names: list[str]) -> None:
    """These and no others are published and listed, all of it whole, and nothing is left behind."""
    published = sorted(path.parent.name for path in scene.repository.glob("backups/*/backup.json"))
    assert published == sorted(names)
    assert sorted(one["name"] for one in scene.ctl.ok("list")["snapshots"]) == published
    check_quiet(scene.client.admin, [scene.client])
    sweep(scene.client.admin, scene.ctl, scene.repository)
    assert unnamed(scene.repository, with_slices=True) == []
    verified = scene.ctl.ok("verify", "--deep", "--max-age", "0", "--wait", within_s=120)
    assert verified["harmed"] == 0, verified
