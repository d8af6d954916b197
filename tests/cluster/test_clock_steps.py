"""Clocks that are two days off, and are set again and again: nothing that matters goes by them.

Leases, names, staleness, deadlines and retention are counted in the server's time or by clocks that
cannot be set. Agents and the host of `ctl` have wrong clocks here; the servers' are right.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster.scene import Scene, note
from tests.support.agents import Agents
from tests.support.compare import assert_same
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.fake_clock import FakeClock
from tests.support.ledger import Ledger
from tests.support.leftovers import check_quiet
from tests.support.mongod import ReplicaSet

pytestmark = pytest.mark.timeout(300)

DAYS = (2.0, -2.0)
FORBIDDEN = ("lease_lost", "superseded", "renewal_failed", "gap_recorded", "session.broken")
"""Events that would tell of a lease or a slice that a clock has cost."""


@pytest.fixture
def clocks(tmp_path: Path) -> list[FakeClock]:
    """Of three agents: two days ahead and behind."""
    return [FakeClock(tmp_path / f"clock{number}", DAYS[number % 2]) for number in range(3)]


@pytest.fixture
def scene(three_nodes: ReplicaSet, tmp_path: Path, clocks: list[FakeClock]) -> Iterator[Scene]:
    """Three nodes whose agents have wrong clocks."""
    agents = Agents(three_nodes)
    for agent, clock in zip(agents, clocks, strict=True):
        agent.extra.update(clock.environment)
    with agents:
        found = Scene(three_nodes, agents, Ctl(three_nodes.uri()), tmp_path / "repository")
        found.open()
        yield found


def test_clock_steps_of_two_days_cost_nothing(scene: Scene, clocks: list[FakeClock]) -> None:
    rng = random.Random(7)
    scene.fill(10)
    scene.enable_pitr(1.0)
    with Ledger(scene.replset.uri(), 7, writers=2, rate=10, prepared=False) as ledger:
        scene.arm("snapshot.chunk_stored=sleep:8@2")
        op_id = scene.begin("backup")
        for _ in range(12):
            for clock in clocks:
                clock.step(rng.choice((*DAYS, 0.0)))
            time.sleep(1.0)
        base = scene.wait_done(op_id)
        time.sleep(2.0)
        ledger.stop()
        at = ledger.moments()[-1]
        expected = scene.fingerprint()
        ledger.start()
        for clock in clocks:
            clock.step(-clock.days or 2.0)
        time.sleep(2.0)
    _check_untouched(scene, base)
    scene.wait_covered(at)
    assert scene.gaps() == []
    assert len(scene.runs()) == 1
    scene.ctl.ok("config", "--set", "pitr.enabled=false")
    scene.restore("--time", f"{at[0]},{at[1]}")
    assert ledger.judge(scene.client, at).is_exact
    assert_same(expected, scene.fingerprint())
    check_quiet(scene.client.admin, [scene.client])
    note(f"clocks were set {sum(clock.steps for clock in clocks)} times by up to four days")


def _check_untouched(scene: Scene, base: dict[str, object]) -> None:
    """One attempt each, no lease lost, and a name of the server's time."""
    found = scene.operation(str(base["_id"]))
    assert (found["attempts"], [part["attempts"] for part in found["parts"]]) == (1, [1])
    for agent in scene.agents:
        told = [line for line in agent.log_text().splitlines() if any(w in line for w in FORBIDDEN)]
        assert told == [], told
    named = datetime.strptime(str(base["name"]), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - named).total_seconds()) < 120


def test_ctl_waits_and_judges_ages_by_the_server_whatever_its_clock_says(
    one_node: ReplicaSet, tmp_path: Path
) -> None:
    clock = FakeClock(tmp_path / "clock", 2.0)
    wrong = Ctl(one_node.uri(), extra=clock.environment)
    with Agents(one_node) as agents:
        scene = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        scene.open()
        scene.fill(5)
        scene.backup()
        plan = wrong.ok("delete-backup", "--older-than", "1d", "--dry-run", "-y")
        assert plan["deleted"] == []
        scene.arm("snapshot.chunk_stored=sleep:4", one_node.primary())
        waiting = subprocess.Popen(
            wrong.command("backup", "--wait", "--wait-time", "60s"),
            env=wrong.environment,
            stdout=subprocess.DEVNULL,
        )
        running = scene.client.admin.tidelogOperations
        eventually(lambda: running.count_documents({"state": "running"}) > 0, 30.0)
        for days in (-2.0, 2.0, -2.0):
            clock.step(days)
            time.sleep(1.0)
        assert waiting.wait(60.0) == 0
        ((node,),) = [one["nodes"] for one in wrong.ok("status", "-s", "cluster")["cluster"]]
        assert node["ok"], node
