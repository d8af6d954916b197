"""Agents as real processes beside real nodes: alone on their node, quiet, and replaceable."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import AgentProcess, Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import Auth, Member, MongodNode, ReplicaSet, SetOptions

IDLE_FOR_S = 20.0
TTL_S = 10.0


def registered(replset: ReplicaSet) -> list[str]:
    return sorted(row["_id"] for row in replset.client().admin.tidelogAgents.find())


def operation(replset: ReplicaSet, op_id: str) -> dict[str, Any]:
    found = replset.client().admin.tidelogOperations.find_one({"_id": op_id})
    assert found is not None
    return found


@contextmanager
def agent_of(
    replset: ReplicaSet, node: MongodNode, log: Path, **given: Any
) -> Iterator[AgentProcess]:
    agent = AgentProcess(replset, node, log, **given)
    try:
        yield agent
    finally:
        agent.kill()


def ended(replset: ReplicaSet, log: Path, within_s: float = 30.0, **given: Any) -> tuple[int, str]:
    """Exit status and log of an agent that must end by itself."""
    with agent_of(replset, replset.data_nodes[0], log, **given) as agent:
        agent.start()
        return agent.wait_ended(within_s), agent.log_text()


def test_agents_announce_themselves_and_say_goodbye(one_node: ReplicaSet) -> None:
    with Agents(one_node) as agents:
        found = agents.all[0].announcement()
        assert found is not None
        assert (found["role"], found["pid"]) == ("primary", agents.all[0].pid)
        assert "kind:backup" in found["features"]
        started = time.monotonic()
        assert agents.all[0].terminate() == 0
        assert time.monotonic() - started < 5
    assert registered(one_node) == []
    node_lease = one_node.client().admin.tidelogLeases.find_one({"_id": {"$regex": "^node/"}})
    assert node_lease is not None
    assert node_lease["owner"] is None, "the next one need not wait"


def test_a_second_agent_on_a_node_is_refused(one_node: ReplicaSet, tmp_path: Path) -> None:
    with Agents(one_node) as agents:
        status, log = ended(one_node, tmp_path / "second.log")
        assert status == 3, log
        assert "another agent serves" in log
        agents.all[0].check_running()


def test_the_lease_of_a_killed_agent_is_taken_when_it_lapses(one_node: ReplicaSet) -> None:
    with Agents(one_node) as agents:
        (agent,) = agents.all
        agent.kill()
        killed_at = time.monotonic()
        agent.start()
        agent.wait_announced(TTL_S + 5)
        assert time.monotonic() - killed_at > 1, "the dead one's lease had to lapse first"


def test_an_agent_that_was_paused_past_its_lease_goes_on(one_node: ReplicaSet) -> None:
    with Agents(one_node) as agents:
        (agent,) = agents.all
        agent.pause()
        time.sleep(TTL_S + 3)
        agent.resume()
        agent.wait_announced()
        eventually(lambda: "node.lease_lost" in agent.log_text())
        agent.check_running()


@pytest.mark.parametrize(
    ("uri", "arguments", "status", "sentence"),
    [
        ("", (), 2, "no connection string"),
        ("mongodb+srv://x.example.com/", (), 2, "mongodb+srv"),
        ("http://localhost/", (), 2, "connection string"),
        ("mongodb://127.0.0.1:1/", (), 5, "127.0.0.1:1"),
        ("mongodb://127.0.0.1:1/", ("--config", "/nowhere.yaml"), 2, "/nowhere.yaml"),
    ],
    ids=["none", "srv", "http", "nobody there", "no file"],
)
def test_what_cannot_be_served_ends_with_a_sentence_and_a_status(
    one_node: ReplicaSet,
    tmp_path: Path,
    uri: str,
    arguments: tuple[str, ...],
    status: int,
    sentence: str,
) -> None:
    extra = {"TIDELOG_MONGODB_URI": uri, "TIDELOG_MONGODB__DEADLINE": "2s"}
    found, log = ended(one_node, tmp_path / "log", extra=extra, arguments=arguments)
    assert found == status, log
    assert sentence in log
    assert "Traceback" not in log


def test_an_agent_without_a_database_ends_and_says_so(tmp_path: Path, mongod: Path) -> None:
    with ReplicaSet(1) as replset:
        extra = {"TIDELOG_MONGODB__DEADLINE": "4s"}
        with agent_of(replset, replset.data_nodes[0], tmp_path / "log", extra=extra) as agent:
            agent.start()
            agent.wait_announced()
            replset.kill(replset.data_nodes[0])
            assert agent.wait_ended(40) == 5, agent.log_tail()


def test_no_password_is_in_the_log_or_in_the_list_of_processes(
    tmp_path: Path, mongod: Path
) -> None:
    options = SetOptions(name="auth", members=(Member(),), auth=Auth(password="hunter2/x@y"))
    with ReplicaSet(options) as replset, Agents(replset, is_warm=False) as agents:
        (agent,) = agents.all
        command = Path(f"/proc/{agent.pid}/cmdline").read_text()
        replset.kill(replset.data_nodes[0])
        eventually(lambda: "control.unreachable" in agent.log_text(), 30)
        replset.start(replset.data_nodes[0])
        replset.wait_healthy()
        agent.wait_announced()
        assert "hunter2" not in command + agent.log_text()
        docs = [str(row) for row in replset.client().admin.tidelogEvents.find()]
        assert "hunter2" not in "".join(docs)


def test_an_idle_agent_that_slices_costs_next_to_nothing(
    one_node: ReplicaSet, tmp_path: Path
) -> None:
    with Agents(one_node) as agents:
        (agent,) = agents.all
        admin = one_node.client().admin
        ctl = Ctl(one_node.uri())
        ctl.configure_filesystem(tmp_path)
        ctl.ok("config", "--set", "pitr.enabled=true")
        eventually(lambda: admin.tidelogSlices.count_documents({"kind": "run"}) == 1, 30)
        time.sleep(2)
        # What the driver itself asks to know the topology (hello) is not ours to choose.
        own = {"appName": "tidelog-agent", "command.hello": {"$exists": False}}
        admin.command("profile", 2, filter=own)
        try:
            before = _cpu_s(agent.pid)
            time.sleep(IDLE_FOR_S)
            cpu_share = (_cpu_s(agent.pid) - before) / IDLE_FOR_S
        finally:
            admin.command("profile", 0)
        rows = list(admin["system.profile"].find({"appName": "tidelog-agent"}))
        admin.drop_collection("system.profile")
        per_s = len(rows) / IDLE_FOR_S
        kinds = sorted(str(row.get("command", {}))[:60] for row in rows)
        assert per_s < 1.8, "\n".join(kinds)
        assert cpu_share < 0.01, "0.4 per cent on a quiet machine; this one may be loaded"


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def configured(agents: Agents, ctl: Ctl, tmp_path: Path) -> Ctl:
    repository = tmp_path / "repository"
    repository.mkdir()
    ctl.configure_filesystem(repository)
    return ctl


def best(replset: ReplicaSet) -> MongodNode:
    """The node that leads and works while all are well: the first secondary by name."""
    return min(replset.secondaries(), key=lambda node: node.host)


def rearmed(agents: Agents, node: MongodNode, faults: str) -> AgentProcess:
    agent = agents.of(node)
    assert agent.terminate() == 0
    agent.start(faults=faults)
    agent.wait_announced()
    return agent


@pytest.mark.parametrize("change", [1, 3, 4], ids=["electing", "running", "publishing"])
@pytest.mark.timeout(120)
def test_a_lead_killed_after_a_change_is_followed_by_another(
    three_nodes: ReplicaSet, agents: Agents, configured: Ctl, change: int
) -> None:
    armed = rearmed(agents, best(three_nodes), f"operation.transitioned=kill@{change}")
    done = configured.ok("backup", "--wait", "--wait-time", "60", within_s=90)
    assert done["status"] == "done"
    assert not armed.is_running
    armed.kill()
    found = operation(three_nodes, done["op_id"])
    assert found["lead_node"] != armed.id
    assert len(configured.ok("list")["snapshots"]) == 1


@pytest.mark.timeout(120)
def test_a_worker_paused_past_its_lease_changes_nothing_when_it_wakes(
    three_nodes: ReplicaSet, agents: Agents, configured: Ctl, tmp_path: Path
) -> None:
    zombie = rearmed(agents, best(three_nodes), "snapshot.manifest_written=stop")
    done = configured.ok("backup", "--wait", "--wait-time", "60", within_s=90)
    assert done["status"] == "done"
    before = operation(three_nodes, done["op_id"])
    assert before["parts"][0]["node"] != zombie.id
    objects = sorted(path for path in (tmp_path / "repository").rglob("*") if path.is_file())
    zombie.resume()
    eventually(lambda: "node.lease_lost" in zombie.log_text())
    zombie.wait_announced()
    time.sleep(2)
    assert operation(three_nodes, done["op_id"]) == before
    assert objects == sorted(
        path for path in (tmp_path / "repository").rglob("*") if path.is_file()
    )
    assert len(configured.ok("list")["snapshots"]) == 1


def test_a_step_down_is_carried_over(
    three_nodes: ReplicaSet, agents: Agents, configured: Ctl
) -> None:
    for _ in range(2):
        three_nodes.step_down()
        assert configured.ok("backup", "--wait", within_s=60)["status"] == "done"
    three_nodes.wait_healthy()
    for agent in agents:
        agent.check_running()
