"""Restores that lose their worker or their primary, and those that must not begin."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import UpdateOne
from pymongo.errors import PyMongoError

from tests.cluster.scene import Scene, chunk_keys, flip_byte, moment, truncate
from tests.support.agents import Agents
from tests.support.compare import assert_same
from tests.support.crashes import IN_FULL, is_stopped
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet, SetOptions

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def other_set(mongod: Path) -> Iterator[ReplicaSet]:
    """A set of one node under another name."""
    with ReplicaSet(SetOptions(name="other")) as replset:
        yield replset


@pytest.mark.parametrize(
    ("fault", "moves"),
    [
        ("restore.dropped=kill", False),
        ("restore.chunk_loaded=kill@2", True),
        ("restore.checkpoint=kill", False),
        ("restore.replayed=kill", True),
        ("restore.indexes_built=kill", False),
    ],
)
@pytest.mark.story("F8", "operator#1463")
def test_killed_restore_is_gone_on_with(scene: Scene, fault: str, moves: bool) -> None:
    """By the agent of the new primary, or by the same one when it is back."""
    before = scene.fill()
    name = _backup_with_writes(scene)
    expected = scene.fingerprint()
    assert expected != before
    scene.client.shop.large1.drop()
    scene.client.other.stranger.insert_one({"x": 1})
    armed = scene.arm(fault, scene.replset.primary())
    op_id = scene.begin("restore", name, "-y")
    died = scene.wait_died(armed)
    if moves:
        scene.replset.step_down()
    died.start()
    found = scene.wait_done(op_id)
    assert (found["parts"][0]["node"] != died.id) is moves
    assert_same(expected, scene.fingerprint())


def test_restore_survives_step_down_of_the_primary(scene: Scene) -> None:
    before = scene.fill()
    name = scene.backup()["name"]
    scene.client.drop_database("shop")
    (first,) = scene.arm("restore.chunk_loaded=sleep:3@2", scene.replset.primary())
    op_id = scene.begin("restore", name, "-y")
    eventually(lambda: bool(scene.client.shop.list_collection_names()), 30.0)
    scene.replset.step_down()
    found = scene.wait_done(op_id)
    assert found["parts"][0]["node"] != first.id
    assert_same(before, scene.fingerprint())


@IN_FULL
def test_a_stopped_worker_that_wakes_up_changes_nothing(scene: Scene) -> None:
    """Stopped between asking its lease and sending, it wakes up when the restore is long over, the
    clients have written on, and its node is primary again."""
    scene.fill(5)
    name = scene.backup()["name"]
    scene.client.drop_database("shop")
    first = scene.replset.primary()
    # The first array is the marker, the second what all small collections hold.
    (armed,) = scene.arm("restore.before_apply=stop@2", first)
    op_id = scene.begin("restore", name, "-y")
    eventually(lambda: is_stopped(armed.pid), 60.0, describe=scene.agents.log_tails)
    scene.replset.step_down()
    done = scene.wait_done(op_id)
    assert done["parts"][0]["node"] != armed.id
    small = [scene.client.shop[f"small{number}"] for number in range(8)]
    for one in small:
        assert one.delete_many({}).deleted_count == 50
    (other,) = [node for node in scene.replset.secondaries() if node is not first]
    scene.replset.connect(scene.replset.uri_of(other)).admin.command({"replSetFreeze": 60})
    assert scene.replset.step_down() is first
    admin = scene.replset.connect(scene.replset.uri_of(first)).admin

    def arrays(which: str) -> int:
        return int(admin.command("serverStatus")["metrics"]["commands"]["applyOps"][which])

    before = {which: arrays(which) for which in ("total", "failed")}
    armed.resume()
    eventually(lambda: arrays("total") > before["total"], 20.0, describe=scene.agents.log_tails)
    assert [one.count_documents({}) for one in small] == [0] * 8
    assert arrays("failed") == before["failed"] + 1
    scene.replset.connect(scene.replset.uri_of(other)).admin.command({"replSetFreeze": 0})


@IN_FULL
@pytest.mark.parametrize(
    ("point", "stage", "command"),
    [
        ("hangAfterSettingUpIndexBuild", "wiped", {"command.createIndexes": "large0"}),
        ("dropDatabaseHangAfterAllCollectionsDrop", "checked", {"command.dropDatabase": 1}),
    ],
    ids=["index build", "drop"],
)
def test_a_server_that_hangs_amidst_what_may_take_days_is_left(
    scene: Scene, point: str, stage: str, command: dict[str, Any]
) -> None:
    """The agent of the new primary goes on; what was asked of the old one is let go."""
    scene.fill(5)
    scene.client.shop.large0.create_index("n")
    before = scene.fingerprint()
    name = scene.backup()["name"]
    hung = scene.replset.primary()
    hanging = {"configureFailPoint": point}
    scene.arm("restore.before_drop=sleep:3,restore.created=sleep:3", hung)
    op_id = scene.begin("restore", name, "-y")

    def reached() -> bool:
        parts = scene.operation(op_id)["parts"]
        return bool(parts) and parts[0].get("result", {}).get("state", {}).get("stage") == stage

    eventually(reached, 60.0)
    scene.client.admin.command({**hanging, "mode": "alwaysOn"})
    under_way: list[dict[str, Any]] = [{"$currentOp": {}}, {"$match": command}]
    eventually(lambda: bool(list(scene.client.admin.aggregate(under_way))), 60.0)
    hung.pause()
    try:
        done = scene.wait_done(op_id, 90.0)
    finally:
        hung.resume()

    def let_go() -> bool:
        try:
            client = scene.replset.connect(scene.replset.uri_of(hung))
            client.admin.command({**hanging, "mode": "off"})
        except PyMongoError:
            return False
        return True

    eventually(let_go, 30.0)
    assert done["parts"][0]["node"] != scene.agents.of(hung).id
    eventually(lambda: len(scene.replset.secondaries()) == 2, 60.0)
    assert_same(before, scene.fingerprint())
    scene.agents.of(hung).terminate(10.0)


def test_restore_is_done_while_a_secondary_is_down(scene: Scene) -> None:
    """Two of three are a majority, for writes and for index builds."""
    before = scene.fill(5)
    name = scene.backup()["name"]
    scene.client.drop_database("shop")
    down = scene.replset.secondaries()[0]
    scene.agents.of(down).kill()
    down.kill()
    try:
        scene.restore(name)
        assert_same(before, scene.fingerprint())
    finally:
        down.start()
    scene.replset.wait_healthy(60.0)


HARM: dict[str, Callable[[Path], None]] = {
    "flipped": flip_byte,
    "truncated": truncate,
    "missing": Path.unlink,
}


@pytest.mark.story("F3", "PBM-1550")
def test_harmed_repository_is_refused_before_the_target_is_touched(scene: Scene) -> None:
    """Each kind of harm to a chunk and to a slice: the object is named, nothing has changed."""
    scene.fill(10)
    name = _backup_with_writes(scene)
    manifest = scene.manifest(name)
    before = scene.fingerprint()
    kept = scene.repository.with_name("kept")
    for key in (sorted(chunk_keys(manifest))[0], manifest["slices"][-1]["key"]):
        for harm in HARM.values():
            path = scene.repository / key
            shutil.copy2(path, kept)
            harm(path)
            done = scene.try_restore(name)
            assert done.status == 1, str(done)
            assert key in str(done.value["error"]), str(done)
            assert_same(before, scene.fingerprint())
            path.unlink(missing_ok=True)
            shutil.copy2(kept, path)
            scene.faults += 1
    scene.restore(name)


@pytest.mark.story("operator#2317")
def test_restore_while_a_backup_runs_is_refused(scene: Scene) -> None:
    scene.fill(10)
    name = scene.backup()["name"]
    scene.arm("snapshot.chunk_stored=sleep:8")
    op_id = scene.begin("backup")
    eventually(lambda: scene.operation(op_id)["state"] == "running", 30.0)
    sentence = scene.ctl.fails(3, "restore", name, "-y")
    assert "another operation in progress" in sentence
    assert op_id in sentence
    scene.wait_done(op_id)


def test_another_set_that_is_not_empty_becomes_the_backup(
    scene: Scene, other_set: ReplicaSet
) -> None:
    """Under another name, with --replset-remapping; what was there is gone."""
    before = scene.fill(10)
    name = scene.backup()["name"]
    client = other_set.client()
    client.shop.large0.insert_one({"_id": "foreign"})
    client.strange.things.insert_many({"_id": i} for i in range(50))
    with Agents(other_set) as agents:
        there = Scene(other_set, agents, Ctl(other_set.uri()), scene.repository)
        there.open()
        there.ctl.ok("config", "--force-resync", "--wait")
        refused = there.try_restore(name)
        assert refused.status == 3, str(refused)
        assert "--replset-remapping" in str(refused.value["hint"])
        there.restore(name, "--replset-remapping", "other=three")
        assert_same(before, there.fingerprint())


@pytest.mark.parametrize("fault", ["delete.withdrawn=kill", "delete.object_deleted=kill"])
def test_deletion_cut_short_is_finished_by_another_agent(scene: Scene, fault: str) -> None:
    """Nothing of the backup is left, and nothing of another one is touched."""
    scene.fill(5)
    kept = scene.backup()
    before = scene.listing()
    expected = scene.fingerprint()
    doomed = scene.backup()["name"]
    nodes = sorted(scene.replset.secondaries(), key=lambda node: node.host)
    armed = scene.arm(fault, nodes[0])
    op_id = scene.begin("delete-backup", doomed, "-y")
    died = scene.wait_died(armed)
    found = scene.wait_done(op_id)
    assert found["lead_node"] != died.id
    assert scene.listing() == before
    assert [s["name"] for s in scene.ctl.ok("list")["snapshots"]] == [kept["name"]]
    scene.client.drop_database("shop")
    scene.restore(kept["name"])
    assert_same(expected, scene.fingerprint())


def _backup_with_writes(scene: Scene) -> str:
    """A backup with commands, index builds and writes in its span, and the state at its end."""
    scene.arm("snapshot.catalogued=sleep:3")
    op_id = scene.begin("backup")
    eventually(lambda: bool(scene.listing("backups/")), 30.0)
    shop = scene.client.shop
    shop.small0.update_many({}, {"$inc": {"n": 100}})
    shop.small6.drop()
    shop.create_collection("fresh", validator={"n": {"$gte": 0}})
    shop.fresh.insert_many({"_id": i, "n": i} for i in range(2_000))
    shop.fresh.create_index([("n", 1)], unique=True)
    shop.small7.rename("renamed")
    shop.renamed.bulk_write(
        [UpdateOne({"_id": number % 50}, {"$push": {"seen": number}}) for number in range(300)]
    )
    last = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    done = scene.wait_done(op_id)
    assert moment(done["result"]["last_write"]) >= (last.time, last.inc), "the writes came too late"
    return str(done["name"])
