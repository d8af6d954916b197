"""Point-in-time recovery under faults: exactly the acknowledged writes, at any moment.

A ledger knows what was acknowledged and when. Restores to a moment must hold that and no more.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from functools import partial

import pytest
from pymongo.write_concern import WriteConcern

from agent.wire.leases import slicer_scope
from tests.cluster.scene import Scene, moment, note
from tests.support.agents import AgentProcess
from tests.support.chaos import ALL_FAULTS, Chaos
from tests.support.compare import assert_same
from tests.support.eventually import eventually
from tests.support.ledger import Ledger, Moment, by_second
from tests.support.mongod import MongodNode
from tests.support.rollback import roll_back

pytestmark = pytest.mark.timeout(240)


def test_restores_to_random_moments_are_exact_whatever_failed(scene: Scene) -> None:
    """Each fault once, in random order, while writers write; then restores."""
    seed = random.randrange(2**32)
    note(f"seed {seed}")
    scene.enable_pitr(2.0)
    with Ledger(scene.replset.uri(), seed, large_every=400) as ledger:
        base = scene.backup()
        chaos = Chaos(
            seed,
            scene.replset,
            scene.agents,
            scene.repository,
            calm=ledger.calm,
            storage_gone_s=10.0,
        )
        names = sorted(ALL_FAULTS.keys() - {"roll_back"})  # that has a test of its own
        random.Random(seed).shuffle(names)
        for name in names:
            chaos.inject(name)
            time.sleep(1.0)
        ledger.stop()
        scene.faults += chaos.counts.total()
        assert not scene.gaps(), scene.gaps()
        _restore_and_judge(scene, ledger, _after(ledger, base), count=2, seed=seed)


@pytest.mark.story("F4")
def test_the_last_second_is_cut_at_the_increment(scene: Scene) -> None:
    """Thousands of writes in one second, the target in the middle of it."""
    scene.enable_pitr(2.0)
    scene.backup()
    burst = scene.client.burst.get_collection("writes", write_concern=WriteConcern("majority"))
    burst.insert_many({"_id": i} for i in range(30_000))
    oplog = scene.client.local["oplog.rs"].find({"ns": "burst.writes", "op": "i"})
    written = {entry["o"]["_id"]: (entry["ts"].time, entry["ts"].inc) for entry in oplog}
    assert len(written) == 30_000
    second, within = max(by_second(written.values()).items(), key=lambda item: len(item[1]))
    assert len(within) > 1000, (second, len(within))
    target = sorted(within)[len(within) // 2]
    scene.wait_covered(max(written.values()))
    scene.restore("--time", f"{target[0]},{target[1]}")
    found = {document["_id"] for document in burst.find({}, {"_id": 1})}
    assert found == {key for key, at in written.items() if at <= target}
    note(f"{len(within)} writes in second {second}, cut at {target}: {len(found)} documents")


def test_what_was_rolled_back_is_in_no_restore(scene: Scene) -> None:
    """A primary cut off from all others takes writes that nobody else ever has."""
    scene.enable_pitr(2.0)
    with Ledger(scene.replset.uri(), 1) as ledger:
        base = scene.backup()
        time.sleep(2.0)
        ledger.stop()
        lost = roll_back(scene.replset, scene.replset.primary())
        scene.faults += 1
        ledger.start()
        time.sleep(3.0)
        ledger.stop()
        moments = _after(ledger, base)
        _restore_and_judge(scene, ledger, [moments[-1]], count=1)
        assert scene.client.ledger.lost.count_documents({"_id": {"$gte": 0}}) == 0
        assert lost > 0
        assert not scene.gaps(), scene.gaps()


def test_lost_position_is_a_gap_with_its_cause_and_a_new_base_follows(scene: Scene) -> None:
    """While nobody sliced the oplog rolled over: said in list and status, autoBase takes a base."""
    scene.enable_pitr(2.0, "pitr.autoBase=true")
    scene.client.shop.orders.insert_many({"_id": i} for i in range(100))
    first = eventually(lambda: scene.ctl.ok("list")["snapshots"], 60.0)[0]
    scene.wait_covered((int(time.time()) - 1, 0))
    scene.agents.stop()
    roll_over(scene)
    scene.agents.start()
    (gap,) = eventually(scene.gaps, 60.0, describe=scene.agents.log_tails)
    assert gap["cause"] == "oplog rolled over"
    listed = scene.ctl.ok("list")
    assert listed["pitr"]["gaps"][0]["cause"] == "oplog rolled over"
    assert "oplog rolled over" in scene.ctl.run("list", out=None).stdout
    start, end = moment(gap["start"]), moment(gap["end"])
    assert start < end
    refused = scene.try_restore("--time", f"{start[0]},{start[1] + 1}")
    assert refused.status == 3, str(refused)
    eventually(lambda: len(scene.ctl.ok("list")["snapshots"]) == 2, 60.0)
    scene.client.shop.orders.insert_one({"_id": "after"})
    at = now(scene)
    expected = scene.fingerprint()
    scene.client.shop.orders.insert_one({"_id": "too late"})
    scene.wait_covered(now(scene))
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert_same(expected, scene.fingerprint())
    assert first["name"] in {s["name"] for s in scene.ctl.ok("list")["snapshots"]}


def test_slicing_is_handed_over_without_gap_or_double(scene: Scene) -> None:
    """Killed, paused past its lease, and a node that goes away: each time another goes on."""
    scene.enable_pitr(2.0)
    with Ledger(scene.replset.uri(), 1) as ledger:
        base = scene.backup()
        seen = set()
        for way in ("kill", "pause"):
            before = scene.slicer()
            seen.add(before.id)
            if way == "kill":
                before.kill()
            else:
                before.pause()
            eventually(partial(_is_another, scene, before), 40.0)
            scene.wait_covered(now(scene))
            if way == "kill":
                before.start()
            else:
                before.resume()
            scene.faults += 1
        time.sleep(3.0)
        ledger.stop()
        scene.wait_covered(ledger.moments()[-1])
        assert len(seen) == 2
        assert len(scene.runs()) == 1, scene.runs()
        assert not scene.gaps()
        _restore_and_judge(scene, ledger, _after(ledger, base), count=2)


def test_the_node_that_is_preferred_slices_from_the_moment_it_is(scene: Scene) -> None:
    """At first a secondary; then whoever `pitr.priority` puts first, at once and without gap: a
    bid by what was set before is withdrawn."""
    scene.enable_pitr(2.0)
    primary = scene.agent_of_primary()
    assert scene.slicer() is not primary
    others = [agent for agent in scene.agents.all if agent is not primary]
    for wanted in (primary, max(others, key=lambda agent: agent.id)):
        scene.ctl.ok("config", "--set", f"pitr.priority.{wanted.node.host}={2 + scene.faults}")
        scene.faults += 1
        eventually(partial(_is_slicer, scene, wanted), 45.0, describe=scene.agents.log_tails)
    scene.wait_covered(now(scene))
    assert len(scene.runs()) == 1, scene.runs()
    assert not scene.gaps()


def test_restore_begins_a_timeline_and_the_old_one_stays_restorable(scene: Scene) -> None:
    scene.enable_pitr(2.0, "pitr.autoBase=true")
    with Ledger(scene.replset.uri(), 1) as ledger:
        base = scene.backup()
        time.sleep(4.0)
        ledger.stop()
        old = _after(ledger, base)
        scene.wait_covered(old[-1])
        scene.restore("--time", f"{old[5][0]},{old[5][1]}")
        eventually(lambda: len(scene.runs()) == 2, 40.0)
        bases = eventually(
            lambda: [b for b in scene.ctl.ok("list")["snapshots"] if b["restoreTo"] > old[-1][0]],
            60.0,
        )
        assert bases
        assert scene.gaps()[0]["cause"] == "restored"
        scene.client.fresh.things.insert_many({"_id": i} for i in range(20))
        at = now(scene)
        expected = scene.fingerprint()
        scene.client.fresh.things.delete_many({})
        scene.wait_covered(now(scene))
        for target in (old[-1], old[len(old) // 2]):
            scene.restore("--time", f"{target[0]},{target[1]}")
            verdict = ledger.judge(scene.client, target)
            assert verdict.is_exact, verdict
        scene.restore("--time", f"{at[0]},{at[1]}")
        assert_same(expected, scene.fingerprint())


def test_slicing_switched_on_begins_at_a_backup_but_never_before_a_restore(scene: Scene) -> None:
    """Though the restore was asked for before that backup ended, and waited in line. Until its turn
    it holds no slicing up."""
    scene.client.shop.orders.insert_one({"_id": 1})
    first = scene.backup()
    scene.enable_pitr(2.0)
    assert scene.runs()[0]["start"] == first["last_write"]
    scene.arm("snapshot.catalogued=sleep:6")
    slow = scene.begin("backup")
    eventually(lambda: scene.operation(slow)["state"] == "running", 20.0)
    waiting = scene.begin("restore", first["name"], "-y", "--queue")
    scene.client.shop.orders.insert_one({"_id": 2})
    scene.wait_covered(now(scene))
    assert scene.operation(waiting)["queued"]
    second = scene.wait_done(slow)
    scene.wait_done(waiting)
    scene.ctl.ok("config", "--set", "pitr.enabled=false")
    eventually(lambda: scene.holder(slicer_scope(scene.replset.name)) is None, 40.0)
    scene.client.admin.tidelogSlices.delete_many({"kind": {"$in": ["run", "gap"]}})
    own = [scene.manifest(name)["slices"] for name in (first["name"], second["name"])]
    for key in set(scene.slices()) - {item["key"] for slices in own for item in slices}:
        (scene.repository / key).unlink()
    before = now(scene)
    scene.enable_pitr(2.0)
    assert moment(scene.runs()[0]["start"]) >= before


def test_slicing_goes_on_from_a_backup_that_was_taken_while_nobody_sliced(scene: Scene) -> None:
    """Whoever has restored takes a backup at once; it may be over before slicing has begun anew."""
    scene.enable_pitr(2.0)
    first = scene.backup()
    scene.ctl.ok("config", "--set", "pitr.enabled=false")
    eventually(lambda: scene.holder(slicer_scope(scene.replset.name)) is None, 40.0)
    scene.wait_done(scene.begin("restore", first["name"], "-y"))
    scene.client.shop.orders.insert_one({"_id": 1})
    base = scene.backup()
    scene.client.shop.orders.insert_one({"_id": 2})
    at, expected = now(scene), scene.fingerprint()
    scene.enable_pitr(2.0)
    scene.wait_covered(at)
    assert scene.runs()[-1]["start"] == base["last_write"]
    assert [gap["cause"] for gap in scene.gaps()] == ["restored"]
    scene.client.shop.orders.drop()
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert_same(expected, scene.fingerprint())


def test_resync_of_an_empty_control_database_brings_all_back(scene: Scene) -> None:
    """Backups, coverage, and slicing goes on where it was: no gap."""
    scene.enable_pitr(2.0)
    with Ledger(scene.replset.uri(), 1) as ledger:
        first, second = scene.backup(), scene.backup()
        time.sleep(4.0)
        ledger.stop()
        old = _after(ledger, second)
        scene.wait_covered(old[-1])
        scene.agents.stop()
        before = scene.runs()[-1]
        for name in scene.client.admin.list_collection_names(filter={"name": {"$regex": "^tide"}}):
            scene.client.admin.drop_collection(name)
        scene.agents.start()
        scene.open()
        resynced = scene.ctl.ok("config", "--force-resync", "--wait", within_s=60.0)
        assert resynced["backups"] == 2
        assert resynced["oplog_ranges"] == 1
        (run,) = scene.runs()
        assert (run["_id"], run["end"]) == (before["_id"], before["end"])
        names = {s["name"] for s in scene.ctl.ok("list")["snapshots"]}
        assert names == {first["name"], second["name"]}
        scene.enable_pitr(2.0)
        ledger.start()
        time.sleep(3.0)
        ledger.stop()
        new = [at for at in ledger.moments() if at > old[-1]]
        scene.wait_covered(new[-1])
        assert len(scene.runs()) == 1, scene.runs()
        assert not scene.gaps()
        _restore_and_judge(scene, ledger, [old[len(old) // 2], new[-1]], count=2)


def test_coverage_follows_within_fifteen_seconds_and_idle_sets_store_nothing(scene: Scene) -> None:
    """At default settings: now minus what is covered, and no object where nothing was written. All
    while the slicer, whose node has become primary, makes way for a secondary."""
    scene.ctl.ok("config", "--set", "pitr.enabled=true")
    eventually(scene.runs, 40.0)
    before = scene.slicer()
    _make_primary(scene, before.node)
    with Ledger(scene.replset.uri(), 1, rate=100) as ledger:
        scene.backup()
        lags = []
        end = time.monotonic() + 22.0
        while time.monotonic() < end:
            lags.append(now(scene)[0] - scene.covered()[0])
            time.sleep(0.25)
        ledger.stop()
        scene.wait_covered(ledger.moments()[-1])
    note(f"lag: most {max(lags)} s, median {sorted(lags)[len(lags) // 2]} s")
    assert sorted(lags)[int(len(lags) * 0.99)] <= 15
    time.sleep(2.0)
    stored = scene.slices()
    begun = now(scene)
    eventually(lambda: scene.covered()[0] >= begun[0] + 12, 60.0, every_s=0.5)
    assert scene.slices() == stored
    assert before is scene.agent_of_primary()
    assert scene.slicer() is not before
    assert len(scene.runs()) == 1, scene.runs()
    assert not scene.gaps()


def _make_primary(scene: Scene, node: MongodNode) -> None:
    """By an election that no other secondary stands for."""
    for other in scene.replset.secondaries():
        if other is not node:
            scene.replset.connect(scene.replset.uri_of(other)).admin.command("replSetFreeze", 30)
    assert scene.replset.step_down() is node


def _is_slicer(scene: Scene, agent: AgentProcess) -> bool:
    return scene.slicer() is agent


def _is_another(scene: Scene, agent: AgentProcess) -> bool:
    return scene.slicer() is not agent


def _restore_and_judge(
    scene: Scene, ledger: Ledger, moments: Sequence[Moment], *, count: int, seed: int = 0
) -> None:
    """Restore to so many of these moments, always to the last one, and compare."""
    scene.wait_covered(moments[-1])
    chosen = {moments[-1], *random.Random(seed).sample(list(moments), min(count, len(moments)))}
    for at in sorted(chosen, key=lambda _: random.random()):
        scene.restore("--time", f"{at[0]},{at[1]}")
        verdict = ledger.judge(scene.client, at)
        assert verdict.is_exact, (ledger.seed, at, verdict)
        assert verdict.checked > 0
        note(f"exact at {at}: {verdict.checked} documents")


def _after(ledger: Ledger, base: dict[str, dict[str, int]]) -> list[Moment]:
    """The ledger's moments that this backup can be carried on to."""
    begin = moment(base["last_write"])
    found = [at for at in ledger.moments() if at > begin]
    assert found, "nothing was acknowledged after the backup"
    return found


def now(scene: Scene) -> Moment:
    """A cluster time that a majority has."""
    reply = scene.client.admin.command(
        {"appendOplogNote": 1, "data": {"msg": "tests"}, "writeConcern": {"w": "majority"}}
    )
    return reply["operationTime"].time, reply["operationTime"].inc


def roll_over(scene: Scene) -> None:
    """Write until the oplog begins later than it does now, on every node. What the server may do
    without is decided by its own checkpoints, one in a minute: `fsync` does not count."""
    nodes = [scene.replset.connect(scene.replset.uri_of(node)) for node in scene.replset.nodes]

    def oldest() -> list[Moment]:
        found = [c.local["oplog.rs"].find_one(sort=[("$natural", 1)]) for c in nodes]
        return [(one["ts"].time, one["ts"].inc) for one in found if one is not None]

    until = now(scene)
    end = time.monotonic() + 120.0
    while any(at <= until for at in oldest()):
        assert time.monotonic() < end, f"the oplog does not roll over: {oldest()}, {until}"
        for number in range(12):
            scene.client.scratch.big.replace_one(
                {"_id": number}, {"pad": random.randbytes(2_000_000)}, upsert=True
            )
        for client in nodes:
            client.admin.command("fsync")
    scene.client.drop_database("scratch")
