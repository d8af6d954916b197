"""Every fault point × every way to fail there: the agent goes on or another incarnation does.

One node and its agent, armed at one point; `tests.support.crashes` says which command passes it.
Of each case is asked, whatever happened:

    the operation has ended within 60 s of recovery, well unless the fault cannot be got over
    what is listed is what storage publishes, and all of it is whole (`ctl verify --deep`)
    no lease of the operation is held, no temporary collection is left, and after a sweep no object
    that nobody names
    slicing goes on without a gap; the next backup works, and its restore gives the very same data

`make crash` runs the whole table; the ring runs `IN_CI`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.scene import Scene, note
from tests.support.agents import Agents
from tests.support.compare import Fingerprint, assert_same
from tests.support.crashes import Case, Driver, chosen, let_it_fail
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.leftovers import check_quiet, sweep, temporary, unnamed
from tests.support.mongod import ReplicaSet

pytestmark = pytest.mark.timeout(300)

RECOVERED_WITHIN_S = 60.0
SECRETS = {"BACKUP_PASSPHRASE": "correct horse", "NEXT_PASSPHRASE": "battery staple"}
TASK = "often"
STRANGER = "5f0000000000000000000001"


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, which knows two passphrases, and an empty repository."""
    with Agents(one_node, extra=SECRETS) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


@pytest.mark.parametrize("case", chosen(is_sharded=False), ids=str)
def test_whatever_fails_wherever_nothing_is_stuck_lost_or_left(scene: Scene, case: Case) -> None:
    stage = _Stage(scene, case)
    stage.prepare()
    (agent,) = scene.arm(case.faults, scene.replset.primary())
    op_id = stage.begin()
    operation = (lambda: scene.operation(op_id)) if op_id else None
    let_it_fail(case, agent, operation, scene.agents.log_tails)
    recovered = time.monotonic()
    stage.end(op_id)
    note(f"{case}: over {time.monotonic() - recovered:.1f} s after recovery")
    stage.check_whole()
    stage.check_usable()


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
        elif driver is Driver.SCHEDULE:
            scene.ctl.ok("config", "--set", f"policy.backups.{TASK}.schedule=* * * * *")
            eventually(lambda: self._schedule(), RECOVERED_WITHIN_S)

    def begin(self) -> str | None:
        """Give the command; answers the operation's id."""
        scene, driver = self.scene, self.case.driver
        if driver is Driver.SLICING:
            scene.client.shop.sliced.insert_many({"_id": number} for number in range(200))
            self.expected = scene.fingerprint()
            return None
        if driver is Driver.SCHEDULE:
            self._let_a_moment_pass()
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
        if self.case.driver is Driver.SCHEDULE:
            self._end_schedule()
            return
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

    def _schedule(self) -> dict[str, Any] | None:
        """What is remembered of the schedule."""
        found = self.scene.client.admin.tidelogConfig.find_one({"_id": "schedule"})
        remembered: dict[str, Any] | None = (found or {}).get("tasks", {}).get(TASK)
        return remembered

    def _let_a_moment_pass(self) -> None:
        """As if nobody had looked for a minute and a half."""
        earlier = {"$subtract": ["$$NOW", 90_000]}
        self.scene.client.admin.tidelogConfig.update_one(
            {"_id": "schedule"}, [{"$set": {f"tasks.{TASK}.handled": earlier}}]
        )

    def _end_schedule(self) -> None:
        """Its moment was dealt with, once: each minute has one backup at most."""
        scene, asked = self.scene, {"kind": "backup", "requested_by": {"$regex": TASK}}
        operations = scene.client.admin.tidelogOperations

        def is_done() -> bool:
            return operations.count_documents({**asked, "state": "done"}) > 0

        eventually(is_done, RECOVERED_WITHIN_S, describe=scene.agents.log_tails)
        scene.ctl.ok("config", "--set", f"policy.backups.{TASK}.enabled=false")
        moments = [one["requested_at"] for one in operations.find(asked).sort("requested_at", 1)]
        minutes = (moments[-1] - moments[0]).total_seconds() / 60
        assert len(moments) <= minutes + 2, moments

    def check_whole(self) -> None:
        """Nothing is stuck, nothing is left, and what is published is whole."""
        scene, admin = self.scene, self.scene.client.admin
        check_quiet(admin, [scene.client])
        if self.case.driver is Driver.ADOPT and not self._is_ours():
            self._again("storage", "adopt", "-y")
        if self.case.driver is Driver.RESYNC:
            self._again("config", "--force-resync")
        self._check_listed()
        verified = scene.ctl.ok("verify", "--deep", "--max-age", "0", "--wait", within_s=120)
        assert verified["harmed"] == 0, verified
        assert verified["harmed_ranges"] == [], verified
        sweep(admin, scene.ctl, scene.repository)
        if not self._is_encrypted:
            assert unnamed(scene.repository, with_slices=not self._is_slicing) == []

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
        assert temporary(scene.client) == []

    def _check_listed(self) -> None:
        scene = self.scene
        published = sorted(
            path.parent.name for path in scene.repository.glob("backups/*/backup.json")
        )
        listed = sorted(one["name"] for one in scene.ctl.ok("list")["snapshots"])
        assert listed == published

    @property
    def _is_encrypted(self) -> bool:
        """Whether manifests are sealed."""
        return self.case.driver in (Driver.ENABLE, Driver.ROTATE, Driver.ENCRYPTED_BACKUP)

    @property
    def _is_slicing(self) -> bool:
        """Whether the oplog is, or was, archived beside backups."""
        return self.case.driver in (Driver.SLICING, Driver.DELETE_PITR)

    def _again(self, *command: str) -> None:
        """What failed for good may be asked for again."""
        self.scene.ctl.ok(*command, "--wait", within_s=120)

    def _is_ours(self) -> bool:
        return any(self.scene.repository.glob("owners/*"))


def _encryption(action: str, variable: str) -> tuple[str, ...]:
    given = ("--provider", "passphrase", "--passphrase-env", variable)
    return ("encryption", action, *given, "-y")
