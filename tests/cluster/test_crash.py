"""Every fault point × every way to fail there: the agent goes on or another incarnation does.

One node and its agent, armed at one point; `tests.support.crashes` says which command passes it.
Of each case is asked, whatever happened:

    the operation has ended within 60 s of recovery, well unless the fault cannot be got over
    what is listed is what storage publishes, and all of it is whole (`ctl verify --deep`)
    no lease of the operation is held, no temporary collection is left, and no object that nobody
    names but those that were in flight
    slicing goes on without a gap; the next backup works, and its restore gives the very same data

`make crash` runs the whole table; the ring runs `IN_CI`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.wire.leases import TTL_S
from tests.cluster.scene import TERMINAL, Scene, chunk_keys, note
from tests.support.agents import AgentProcess, Agents
from tests.support.compare import Fingerprint, assert_same
from tests.support.crashes import CASES, IN_CI, Case, Driver
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet

pytestmark = pytest.mark.timeout(300)

RECOVERED_WITHIN_S = 60.0
HIT_WITHIN_S = 60.0
IN_FLIGHT = 3 + 1
"""Chunks that a worker has under way at once: a reader each, and the planner's bundle."""
LISTED_BY_RESYNC = (("backup.published", "permanent"), ("delete.withdrawn", "permanent"))
"""What failed for good between storage and catalogue is whole, and a resync lists it."""
SECRETS = {"BACKUP_PASSPHRASE": "correct horse", "NEXT_PASSPHRASE": "battery staple"}
STRANGER = "5f0000000000000000000001"


def _chosen() -> tuple[Case, ...]:
    """The whole table when TIDELOG_CRASH is `all`; the rows whose names hold one of its words."""
    wanted = os.environ.get("TIDELOG_CRASH", "")
    if not wanted:
        return IN_CI
    every = [case for case in CASES if not case.driver.is_apart]
    words = wanted.split(",")
    return tuple(c for c in every if wanted == "all" or any(word in str(c) for word in words))


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, which knows two passphrases, and an empty repository."""
    with Agents(one_node, extra=SECRETS) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


@pytest.mark.parametrize("case", _chosen(), ids=str)
def test_whatever_fails_wherever_nothing_is_stuck_lost_or_left(scene: Scene, case: Case) -> None:
    stage = _Stage(scene, case)
    stage.prepare()
    (agent,) = scene.arm(case.faults, scene.replset.primary())
    op_id = stage.begin()
    _fail(stage, agent, op_id)
    recovered = time.monotonic()
    stage.end(op_id)
    note(f"{case}: over {time.monotonic() - recovered:.1f} s after recovery")
    stage.check_whole()
    stage.check_usable()


def _fail(stage: _Stage, agent: AgentProcess, op_id: str | None) -> None:
    """Wait until the fault has happened, and bring the agent back."""
    action, scene = stage.case.action, stage.scene

    def story() -> str:
        return scene.describe(op_id) if op_id else scene.agents.log_tails()

    if action in ("kill", "cancel"):
        eventually(lambda: not agent.is_running, HIT_WITHIN_S, describe=story)
        assert agent.reap() == (-9 if action == "kill" else 0), agent.log_tail()
        agent.kill()
        agent.start()
        agent.wait_announced()
    elif action == "stop":
        eventually(lambda: _is_stopped(agent.pid), HIT_WITHIN_S, describe=story)
        time.sleep(TTL_S + 1.0)
        agent.resume()
    else:
        said = f"fault injected at {stage.case.point}"

        def happened() -> bool:
            document = json.dumps(scene.operation(op_id), default=str) if op_id else ""
            return said in document or said in agent.log_text()

        eventually(happened, HIT_WITHIN_S, describe=story)


class _Stage:
    """One case: how its command is prepared, given and judged."""

    def __init__(self, scene: Scene, case: Case) -> None:
        self.scene = scene
        self.case = case
        self.expected: Fingerprint = {}
        self.first = ""

    def prepare(self) -> None:
        """All that the command needs, without any fault."""
        scene, driver = self.scene, self.case.driver
        self.expected = scene.fill(5)
        if driver in (Driver.ROTATE, Driver.ENCRYPTED_BACKUP):
            scene.ctl.ok(*_encryption("enable", "BACKUP_PASSPHRASE"), "--wait", within_s=120)
        if driver in (Driver.BACKUP, Driver.ENABLE, Driver.ENCRYPTED_BACKUP):
            return
        self.first = scene.backup()["name"]
        if driver is Driver.RESTORE:
            scene.client.shop.large0.delete_many({"n": 3})
            scene.client.other.stranger.insert_one({"x": 1})
        elif driver is Driver.DELETE:
            scene.backup()
        elif driver is Driver.SLICING:
            scene.enable_pitr(1.0)
        elif driver is Driver.DELETE_PITR:
            scene.enable_pitr(1.0)
            scene.client.shop.sliced.insert_many({"_id": number} for number in range(200))
            last = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
            scene.wait_covered((last.time, last.inc), RECOVERED_WITHIN_S)
            scene.ctl.ok("config", "--set", "pitr.enabled=false")
            self.expected = scene.fingerprint()
        elif driver is Driver.ADOPT:
            marker = scene.repository / "tidelog.json"
            found = json.loads(marker.read_text()) | {"cluster_id": STRANGER}
            marker.chmod(0o600)
            marker.write_text(json.dumps(found))
        elif driver is Driver.RESYNC:
            scene.client.admin.tidelogBackups.delete_many({})

    def begin(self) -> str | None:
        """Give the command; answers the operation's id."""
        scene, driver = self.scene, self.case.driver
        if driver is Driver.SLICING:
            scene.client.shop.sliced.insert_many({"_id": number} for number in range(200))
            self.expected = scene.fingerprint()
            return None
        commands = {
            Driver.RESTORE: ("restore", self.first, "-y"),
            Driver.DELETE: ("delete-backup", self.first, "-y"),
            Driver.DELETE_PITR: ("delete-pitr", "--all", "-y"),
            Driver.HOLD: ("hold", self.first, "kept by a test"),
            Driver.CLEANUP: ("cleanup", "-y"),
            Driver.VERIFY: ("verify", "--deep"),
            Driver.RESYNC: ("config", "--force-resync"),
            Driver.ADOPT: ("storage", "adopt", "-y"),
            Driver.ENABLE: _encryption("enable", "BACKUP_PASSPHRASE"),
            Driver.ROTATE: _encryption("rotate", "NEXT_PASSPHRASE"),
        }
        return scene.begin(*commands.get(driver, ("backup",)))

    def end(self, op_id: str | None) -> None:
        """It has come to an end in time, and to the right one."""
        scene = self.scene
        if op_id is None:
            scene.client.shop.sliced.insert_one({"_id": "after"})
            self.expected = scene.fingerprint()
            last = scene.client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
            scene.wait_covered((last.time, last.inc), RECOVERED_WITHIN_S)
            assert not scene.gaps(), scene.gaps()
            assert len(scene.runs()) == 1, scene.runs()
            return
        found = scene.wait_over(op_id, RECOVERED_WITHIN_S)
        if found["state"] == "failed" and self.case.action == "permanent":
            assert "fault injected" in found["error"]["message"], scene.describe(op_id)
        else:
            assert found["state"] == "done", scene.describe(op_id)

    def check_whole(self) -> None:
        """Nothing is stuck, nothing is left, and what is published is whole."""
        scene, admin = self.scene, self.scene.client.admin
        eventually(lambda: not self._held(), 15.0, describe=lambda: f"held: {self._held()}")
        unfinished = admin.tidelogOperations.find({"state": {"$nin": sorted(TERMINAL)}})
        assert [one["kind"] for one in unfinished] == []
        if (self.case.driver, self.case.action) != (Driver.RESTORE, "permanent"):
            # What a restore that failed for good had set aside is removed by the next one.
            assert self._temporary() == []
        if self.case.driver is Driver.ADOPT and not self._is_ours():
            self._again("storage", "adopt", "-y")
        if self.case.driver is Driver.RESYNC or self.case in LISTED_BY_RESYNC:
            self._again("config", "--force-resync")
        self._check_listed()
        verified = scene.ctl.ok("verify", "--deep", "--max-age", "0", "--wait", within_s=120)
        assert verified["harmed"] == 0, verified
        assert verified["harmed_ranges"] == [], verified

    def check_usable(self) -> None:
        """The next backup and its restore work; with slices, to the moment of the last write."""
        scene = self.scene
        if self.case.driver is Driver.RESTORE:
            # However the faulty one ended, the next one makes it what it was.
            scene.restore(self.first)
            assert_same(self.expected, scene.fingerprint())
        if self.case.driver is Driver.SLICING:
            seconds, increment = scene.covered()
            scene.client.shop.large0.drop()
            scene.restore("--time", f"{seconds},{increment}")
            assert_same(self.expected, scene.fingerprint())
        name = scene.backup()["name"]
        scene.client.drop_database("shop")
        scene.restore(name)
        assert_same(self.expected, scene.fingerprint())
        assert self._temporary() == []

    def _check_listed(self) -> None:
        scene = self.scene
        published = sorted(
            path.parent.name for path in scene.repository.glob("backups/*/backup.json")
        )
        listed = sorted(one["name"] for one in scene.ctl.ok("list")["snapshots"])
        assert listed == published
        if self.case.driver in (Driver.ENABLE, Driver.ROTATE, Driver.ENCRYPTED_BACKUP):
            return  # manifests are sealed
        named = {key for name in published for key in chunk_keys(scene.manifest(name))}
        chunks = set(scene.listing("chunks/"))
        assert named <= chunks
        if self.case.action != "permanent":
            assert len(chunks - named) <= IN_FLIGHT, chunks - named

    def _again(self, *command: str) -> None:
        """What failed for good may be asked for again."""
        self.scene.ctl.ok(*command, "--wait", within_s=120)

    def _is_ours(self) -> bool:
        return any(self.scene.repository.glob("owners/*"))

    def _held(self) -> list[Any]:
        found = self.scene.client.admin.tidelogLeases.find(
            {"owner": {"$ne": None}, "_id": {"$regex": "^(lead|work)/"}}
        )
        return list(found)

    def _temporary(self) -> list[str]:
        client = self.scene.client
        names = [
            f"{database}.{name}"
            for database in client.list_database_names()
            for name in client[database].list_collection_names()
        ]
        return [name for name in names if "tidelogTmp" in name or ".tmp" in name]


def _encryption(action: str, variable: str) -> tuple[str, ...]:
    given = ("--provider", "passphrase", "--passphrase-env", variable)
    return ("encryption", action, *given, "-y")


def _is_stopped(pid: int) -> bool:
    """Whether the process stands still by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
