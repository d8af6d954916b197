"""Links that are cut: who cannot reach what it needs neither publishes nor forks, and another goes
on from the last durable OpTime."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.wire.leases import slicer_scope
from tests.cluster.scene import Scene, moment, note
from tests.support.agents import AgentProcess, Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.ledger import Ledger
from tests.support.mongod import Member, ReplicaSet, SetOptions
from tests.support.network import Network, in_own_network

pytestmark = pytest.mark.timeout(240)

NODES = 3


@contextmanager
def cuttable(repository: Path) -> Iterator[tuple[Network, Scene]]:
    """Nodes and their agents, each on a machine of its own."""
    with Network() as network:
        members = (Member(),) * NODES
        options = SetOptions(name="cut", members=members, machine=network.machine)
        with ReplicaSet(options) as replset, Agents(replset, machine=network.machine) as agents:
            scene = Scene(replset, agents, Ctl(replset.uri()), repository)
            scene.open()
            yield network, scene


@in_own_network
def test_slicing_goes_on_elsewhere_from_where_a_cut_off_slicer_was(tmp_path: Path) -> None:
    """One that sees its node and is not heard by the control database; then one that sees the
    control database and not its node."""
    with cuttable(tmp_path / "repository") as (network, scene):
        scene.enable_pitr(2.0)
        with Ledger(scene.replset.uri(), 1, writers=2, prepared=False) as ledger:
            base = scene.backup()
            for is_blind in (False, True):
                _cut_slicer(network, scene, ledger, is_blind=is_blind)
            ledger.stop()
            moments = [at for at in ledger.moments() if at > moment(base["last_write"])]
            scene.wait_covered(moments[-1])
            assert len(scene.runs()) == 1, scene.runs()
            assert not scene.gaps(), scene.gaps()
            for at in (moments[-1], random.Random(1).choice(moments)):
                scene.restore("--time", f"{at[0]},{at[1]}")
                verdict = ledger.judge(scene.client, at)
                assert verdict.is_exact, (at, verdict)


def _cut_slicer(network: Network, scene: Scene, ledger: Ledger, *, is_blind: bool) -> None:
    """Until another has archived what was written while the first one was cut off."""
    before, epoch = scene.slicer(), _epoch(scene)
    rest = [node.machine for node in scene.replset.nodes if node is not before.node]
    if is_blind:
        network.cut([before.machine], [before.node.machine])
    else:
        network.cut([before.machine], rest, one_way=True)
    began = time.monotonic()
    eventually(lambda: scene.slicer() is not before, 60.0, every_s=0.1)
    taken_s = time.monotonic() - began
    stored = _stored_in(scene, epoch)
    scene.wait_covered(ledger.moments()[-1])
    what = "its node" if is_blind else "the control database"
    caught_up_s = time.monotonic() - began
    note(
        f"cut off from {what}: another slices after {taken_s:.1f} s, caught up {caught_up_s:.1f} s"
    )
    network.heal()
    assert before.is_running, "it has to wait, not to end"
    eventually(lambda: _is_ok(scene, before), 60.0, every_s=0.5, describe=before.log_tail)
    assert _stored_in(scene, epoch) == stored, "it stored something after it was superseded"


def _epoch(scene: Scene) -> int:
    found = scene.client.admin.tidelogLeases.find_one({"_id": slicer_scope(scene.replset.name)})
    assert found is not None
    return int(found["epoch"])


def _stored_in(scene: Scene, epoch: int) -> list[str]:
    """The slices that were stored with this epoch."""
    return [key for key in scene.slices() if f"_{epoch:08d}." in key]


def _is_ok(scene: Scene, agent: AgentProcess) -> bool:
    """Whether `status` says so of it."""
    (replset,) = scene.ctl.ok("status", "-s", "cluster")["cluster"]
    (found,) = [node for node in replset["nodes"] if node["host"] == agent.node.host]
    return bool(found["ok"])
