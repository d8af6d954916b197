"""Backups that lose their worker, their lead, their node or their storage."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.scene import Scene, chunk_keys, epochs_of
from tests.support.compare import assert_same
from tests.support.crashes import is_stopped
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(180)

IN_FLIGHT = 3 + 1
"""Chunks that a worker has under way at once: a reader each, and the planner's bundle."""
SLOWLY = "snapshot.chunk_read=sleep:0.5@*"
"""So that what is stored is in the journal before the next chunk is."""
LARGE_BYTES = 5 * 175 * 30_000
"""At least so much is in the large collections of `Scene.fill`."""


@pytest.mark.parametrize(
    "faults",
    [
        (f"{SLOWLY},snapshot.chunk_stored=kill@{IN_FLIGHT + 1}", "snapshot.manifest_written=kill"),
        (f"{SLOWLY},snapshot.journal_written=kill@2",),
        ("backup.before_publish=kill", "backup.published=kill"),
    ],
)
def test_another_agent_goes_on_when_one_is_killed(scene: Scene, faults: tuple[str, ...]) -> None:
    """And a third when that one is: from the journal, so that no durable chunk is read again."""
    before = scene.fill()
    nodes = sorted(scene.replset.secondaries(), key=lambda node: node.host)
    armed = [scene.arm(fault, node)[0] for fault, node in zip(faults, nodes, strict=False)]
    op_id = scene.begin("backup")
    for agent in armed:
        scene.wait_died([agent])
    dead = {agent.id for agent in armed}
    found = scene.wait_done(op_id)
    named = chunk_keys(scene.manifest(found["name"]))
    orphans = set(scene.listing("chunks/")) - named
    assert len(orphans) <= IN_FLIGHT, orphans
    assert found["lead_node"] not in dead
    if faults[0].startswith("backup."):
        assert not orphans
    else:
        assert found["parts"][0]["node"] not in dead
    if SLOWLY in faults[0]:
        assert len(epochs_of(named)) > 1, named
    assert [s["name"] for s in scene.ctl.ok("list")["snapshots"]] == [found["name"]]
    scene.client.shop.large1.delete_many({})
    scene.client.shop.drop_collection("small3")
    scene.restore(found["name"])
    assert_same(before, scene.fingerprint())


def test_paused_agent_that_wakes_up_writes_nothing(scene: Scene) -> None:
    """SIGSTOP past the lease, then SIGCONT: the listing with its digests stays as it is."""
    before = scene.fill()
    nodes = scene.replset.secondaries()
    scene.arm("snapshot.chunk_stored=stop@2", *nodes[:1])
    scene.agents.of(nodes[1]).terminate()
    op_id = scene.begin("backup")
    paused = scene.agents.of(nodes[0])
    eventually(lambda: is_stopped(paused.pid), 30.0)
    scene.agents.of(nodes[1]).start()
    found = scene.wait_done(op_id)
    listing = scene.listing()
    entry = scene.operation(op_id)
    paused.resume()
    eventually(lambda: "LeaseLost" in paused.log_text() or "superseded" in paused.log_text(), 30.0)
    again = scene.backup()
    now = scene.listing()
    fresh = {key for key in now if again["name"] in key or again["op_id"] in key}
    slices = {key for key in now if key.startswith("slices/")}
    changed = {k for k, digest in listing.items() if now.get(k) != digest}
    assert not changed, changed
    assert not set(now) - set(listing) - fresh - slices
    assert scene.operation(op_id) == entry
    scene.client.drop_database("shop")
    scene.restore(found["name"])
    assert_same(before, scene.fingerprint())


def test_backup_survives_step_down_of_the_primary(scene: Scene) -> None:
    before = scene.fill()
    scene.arm("snapshot.chunk_stored=sleep:2@2")
    op_id = scene.begin("backup")
    eventually(lambda: bool(scene.listing("chunks/")), 30.0)
    scene.replset.step_down()
    found = scene.wait_done(op_id)
    scene.client.drop_database("shop")
    scene.restore(found["name"])
    assert_same(before, scene.fingerprint())


def test_backup_survives_the_node_that_it_reads_from(scene: Scene) -> None:
    """The mongod dies, its agent lives: another node's agent goes on. The history tells what that
    one reads again: the chunk that was not durable yet, and no more than can be in flight."""
    before = scene.fill()
    scene.arm("snapshot.chunk_stored=sleep:60@2")
    op_id = scene.begin("backup")
    eventually(lambda: _bytes_read(scene, op_id) >= LARGE_BYTES, 30.0, every_s=0.1)
    reader = scene.worker()
    scene.replset.kill(reader.node)
    try:
        found = scene.wait_done(op_id)
    finally:
        scene.replset.start(reader.node)
    assert found["parts"][0]["node"] != reader.id
    _check_reread(scene, found)
    scene.replset.wait_healthy()
    scene.client.drop_database("shop")
    scene.restore(found["name"])
    assert_same(before, scene.fingerprint())


def test_collections_dropped_and_renamed_while_they_are_read(scene: Scene) -> None:
    scene.fill()
    scene.arm("snapshot.catalogued=sleep:3")
    op_id = scene.begin("backup")
    eventually(lambda: bool(scene.listing("backups/")), 30.0)
    shop = scene.client.shop
    shop.drop_collection("large1")
    shop.large2.rename("moved")
    shop.large3.rename("large4", dropTarget=True)
    shop.drop_collection("small2")
    shop.small4.rename("small5", dropTarget=True)
    shop.create_collection("small2", capped=True, size=4096)
    expected = scene.fingerprint()
    found = scene.wait_done(op_id)
    shop.moved.delete_many({})
    scene.restore(found["name"])
    assert_same(expected, scene.fingerprint())


def test_command_written_while_no_agent_runs_is_carried_out_later(scene: Scene) -> None:
    scene.fill(5)
    scene.agents.stop()
    op_id = scene.begin("backup")
    assert scene.operation(op_id)["state"] == "requested"
    scene.agents.start()
    scene.wait_done(op_id)


@pytest.mark.story("F11", "PBM-1551")
def test_two_commands_in_the_same_second_are_two_backups(scene: Scene) -> None:
    scene.fill(5)
    running = [
        subprocess.Popen(
            scene.ctl.command("backup", "--queue"),
            env=scene.ctl.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ids = [json.loads(one.communicate(timeout=60)[0])["op_id"] for one in running]
    found = [scene.wait_done(op_id) for op_id in ids]
    assert len({one["name"] for one in found}) == 2
    assert len(scene.ctl.ok("list")["snapshots"]) == 2


def test_cancelled_backup_stops_and_another_begins(scene: Scene) -> None:
    scene.fill()
    scene.arm("snapshot.chunk_stored=sleep:20@1")
    op_id = scene.begin("backup")
    eventually(lambda: scene.operation(op_id)["state"] == "running", 30.0)
    scene.ctl.ok("cancel-backup")
    assert scene.wait_over(op_id, 30.0)["state"] == "cancelled"
    assert scene.ctl.ok("list")["snapshots"] == []
    assert scene.backup()["status"] == "done"


def test_second_agent_on_a_node_is_refused(scene: Scene) -> None:
    """And the first one goes on undisturbed."""
    first = scene.agents.all[0]
    uri = scene.replset.uri_of(first.node)
    second = type(first)(scene.replset, first.node, first.log.with_suffix(".second"), uri=uri)
    second.start()
    try:
        assert second.wait_ended(40.0) not in (0, -9), second.log_tail()
    finally:
        second.kill()
    assert first.is_running
    assert first.announcement() is not None


def test_full_repository_fails_the_backup_and_the_next_one_works(
    scene: Scene, tmp_path: Path
) -> None:
    """A clear cause; after space was freed the next backup works."""
    scene.fill()
    with _small_disk(tmp_path / "disk", "12m") as disk:
        scene.repository = disk / "repository"
        scene.open()
        ballast = disk / "ballast"
        op_id = scene.begin("backup")
        found = scene.wait_over(op_id)
        assert found["state"] == "failed", found
        assert found["error"]["type"] == "StorageFull", found["error"]
        assert found["error"]["hint"]
        scene.client.drop_database("shop")
        before = scene.fill(5, seed=2)
        ballast.unlink(missing_ok=True)
        for chunk in (disk / "repository" / "chunks").rglob("*.bson.zst"):
            chunk.unlink()
        name = scene.backup()["name"]
        scene.client.drop_database("shop")
        scene.restore(name)
        assert_same(before, scene.fingerprint())


@contextmanager
def _small_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tidelog-test", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def _bytes_read(scene: Scene, op_id: str) -> int:
    parts = scene.operation(op_id)["parts"]
    return int(parts[0].get("progress", {}).get("bytes_done", 0)) if parts else 0


def _check_reread(scene: Scene, found: dict[str, Any]) -> None:
    """The history says where the next worker went on from, and how much it read again."""
    chunks = [item["plain_bytes"] for item in scene.manifest(found["name"])["objects"]]
    notes = [entry.get("note") or "" for entry in found["history"]]
    (told,) = [note for note in notes if note.startswith("goes on from the journal")]
    kept, again = [int(word) for word in told.split() if word.isdecimal()]
    assert kept + again >= LARGE_BYTES, told
    assert 0 < again <= IN_FLIGHT * max(chunks), told
    assert found["parts"][0]["result"]["reread_bytes"] == again
    (described,) = scene.ctl.ok("describe-backup", found["name"])["replsets"]
    assert described["reread_bytes"] == again
