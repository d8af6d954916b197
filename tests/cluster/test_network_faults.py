"""Links between agents and the replica set that fail in every way while operations run.

Cut for longer than a lease, in both directions or one, half of all packets lost, frozen for half a
minute: the operation ends well, by this agent or another, and nobody who was cut off changes
anything. `make crash` runs them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.wire.leases import TTL_S
from tests.cluster.scene import Scene, note
from tests.cluster.test_partitions import cuttable
from tests.support.agents import AgentProcess
from tests.support.compare import assert_same
from tests.support.crashes import IN_FULL
from tests.support.eventually import eventually
from tests.support.leftovers import check_nothing_left
from tests.support.mongod.machine import Machine
from tests.support.network import Network, in_own_network

pytestmark = [pytest.mark.timeout(240), IN_FULL]

ENDED_WITHIN_S = 60.0
LOSS_S = 12.0
FREEZE_S = 30.0

Fault = Callable[[Network, Machine, list[Machine]], None]


def cut(network: Network, agent: Machine, nodes: list[Machine]) -> None:
    """Nothing gets through, for longer than a lease."""
    network.cut([agent], nodes)
    time.sleep(TTL_S + 3.0)


def unheard(network: Network, agent: Machine, nodes: list[Machine]) -> None:
    """What the agent sends is lost; it still hears."""
    network.cut([agent], nodes, one_way=True)
    time.sleep(TTL_S + 3.0)


def deaf(network: Network, agent: Machine, nodes: list[Machine]) -> None:
    """What is sent to the agent is lost; it is still heard."""
    network.cut(nodes, [agent], one_way=True)
    time.sleep(TTL_S + 3.0)


def half_lost(network: Network, agent: Machine, nodes: list[Machine]) -> None:
    """Half of what either sends is lost, in bursts of a quarter of a second."""
    rng = random.Random(1)
    end = time.monotonic() + LOSS_S
    while time.monotonic() < end:
        if rng.random() < 0.5:
            network.cut([agent], nodes)
        time.sleep(0.25)
        network.heal()


def frozen(network: Network, agent: Machine, nodes: list[Machine]) -> None:
    """Nothing gets through for half a minute."""
    network.cut([agent], nodes)
    time.sleep(FREEZE_S)


FAULTS: tuple[Fault, ...] = (cut, unheard, deaf, half_lost, frozen)


@pytest.mark.parametrize("fault", FAULTS)
@in_own_network
def test_operations_end_well_though_links_fail(fault: Fault, tmp_path: Path) -> None:
    with cuttable(tmp_path / "repository") as (network, scene):
        nodes = [node.machine for node in scene.replset.nodes]
        expected = scene.fill(10)
        scene.arm("snapshot.chunk_stored=sleep:4@2", *scene.replset.nodes)
        op_id = scene.begin("backup")
        eventually(lambda: bool(scene.listing("chunks/")), 30.0)
        _fail(network, fault, scene.worker(), nodes)
        name = _ended(scene, op_id)
        scene.client.shop.large0.delete_many({"n": 3})
        scene.arm("restore.chunk_loaded=sleep:4@2", scene.replset.primary())
        op_id = scene.begin("restore", name, "-y")
        eventually(lambda: scene.operation(op_id)["state"] == "running", 30.0)
        _fail(network, fault, scene.agent_of_primary(), nodes)
        _ended(scene, op_id)
        assert_same(expected, scene.fingerprint())
        assert all(agent.is_running for agent in scene.agents), "they wait, they do not end"
        check_nothing_left(
            scene.client.admin, [scene.client], scene.ctl, scene.repository, ENDED_WITHIN_S
        )


def _fail(network: Network, fault: Fault, agent: AgentProcess, nodes: list[Machine]) -> None:
    try:
        fault(network, agent.machine, nodes)
    finally:
        network.heal()
    note(f"{fault.__name__}: {agent.id}")


def _ended(scene: Scene, op_id: str) -> str:
    found = scene.wait_over(op_id, ENDED_WITHIN_S)
    assert found["state"] == "done", scene.describe(op_id)
    return str(found["name"])
