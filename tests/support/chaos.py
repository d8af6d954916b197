"""Faults at random while something runs: agents and nodes killed, stopped, stepped down and cut off
from each other, storage gone for a while. One at a time, each healed before the next, so that a
majority always lives."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Self

from pymongo.errors import PyMongoError

from tests.support.agents import Agents
from tests.support.mongod import Machine, MongodNode, ReplicaSet
from tests.support.network import Network
from tests.support.rollback import roll_back

AGENT_FAULTS: Final[Mapping[str, float]] = {"kill_agent": 3, "pause_agent": 2, "stop_agent": 1}
NODE_FAULTS: Final[Mapping[str, float]] = {
    "kill_node": 2,
    "pause_node": 1,
    "step_down": 2,
    "remove_node": 1,
    "roll_back": 1,
}
STORAGE_FAULTS: Final[Mapping[str, float]] = {"storage_gone": 1}
NETWORK_FAULTS: Final[Mapping[str, float]] = {
    "cut_agent_from_node": 1,
    "cut_agent_off": 1,
    "cut_node_off": 1,
    "cut_one_way": 1,
}
"""Only where there is a network whose links can be cut."""
ALL_FAULTS: Final[Mapping[str, float]] = {**AGENT_FAULTS, **NODE_FAULTS, **STORAGE_FAULTS}

_PAST_LEASE_S: Final = 11.0
_JOIN_S: Final = 120.0


class Chaos:
    """Injects faults in a thread of its own until stopped; `counts` says which."""

    def __init__(
        self,
        seed: int,
        replset: ReplicaSet,
        agents: Agents,
        repository: Path,
        *,
        faults: Mapping[str, float] = ALL_FAULTS,
        calm: Callable[[], AbstractContextManager[Any]] = nullcontext,
        rest_s: tuple[float, float] = (1.0, 5.0),
        storage_gone_s: float = 20.0,
        network: Network | None = None,
        storage_away: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        """`storage_away` is how the storage goes; without it `repository` is a directory."""
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._replset = replset
        self._agents = agents
        self._repository = repository
        self._faults = faults
        self._calm = calm
        self._rest_s = rest_s
        self._storage_gone_s = storage_gone_s
        self._network = network
        self._away = storage_away or self._renamed
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._unexpected: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="chaos", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Heal what is broken and stop."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)
            assert not self._thread.is_alive(), "a fault was not healed in time"
            self._thread = None
        if self._unexpected is not None:
            raise self._unexpected

    def _run(self) -> None:
        names, weights = list(self._faults), list(self._faults.values())
        try:
            while not self._stopping.wait(self._rng.uniform(*self._rest_s)):
                self.inject(self._rng.choices(names, weights)[0])
        except BaseException as error:
            self._unexpected = error

    def inject(self, name: str) -> None:
        """One fault, and its end."""
        self.check_alive()
        {
            "kill_agent": self._kill_agent,
            "pause_agent": self._pause_agent,
            "stop_agent": self._stop_agent,
            "kill_node": self._kill_node,
            "pause_node": self._pause_node,
            "step_down": self._step_down,
            "remove_node": self._remove_node,
            "roll_back": self._roll_back,
            "storage_gone": self._storage_away,
            "cut_agent_from_node": self._cut_agent_from_node,
            "cut_agent_off": self._cut_agent_off,
            "cut_node_off": self._cut_node_off,
            "cut_one_way": self._cut_one_way,
        }[name]()
        self.counts[name] += 1

    def check_alive(self) -> None:
        """Fail if a node or an agent ended though nothing of ours ended it."""
        for node in self._replset.nodes:
            assert node.is_running, f"{node!r} died\n{node.epitaph()}"
        for agent in self._agents.all:
            agent.check_running()

    def _kill_agent(self) -> None:
        agent = self._rng.choice(self._agents.all)
        agent.kill()
        self._stopping.wait(self._rng.uniform(0.5, _PAST_LEASE_S))
        agent.start()

    def _pause_agent(self) -> None:
        agent = self._rng.choice(self._agents.all)
        agent.pause()
        self._stopping.wait(self._rng.choice((2.0, _PAST_LEASE_S)))
        agent.resume()

    def _stop_agent(self) -> None:
        agent = self._rng.choice(self._agents.all)
        agent.terminate(40.0)
        agent.start()

    def _kill_node(self) -> None:
        node = self._rng.choice(self._replset.nodes)
        with self._calm():
            node.kill()
        self._stopping.wait(self._rng.uniform(1.0, 6.0))
        node.start()
        self._replset.wait_healthy(90.0)

    def _pause_node(self) -> None:
        node = self._rng.choice(self._replset.nodes)
        with self._calm():
            node.pause()
        self._stopping.wait(self._rng.uniform(1.0, 5.0))
        node.resume()
        self._replset.wait_healthy(90.0)

    def _step_down(self) -> None:
        try:
            with self._calm():
                self._replset.step_down()
        except PyMongoError:
            time.sleep(0.5)
        self._replset.wait_healthy(90.0)

    def _remove_node(self) -> None:
        """A secondary, perhaps the one that slices, is taken out of the set and comes back."""
        with self._calm():
            gone = self._rng.choice(self._replset.secondaries())
            before = self._reconfigure(lambda member: member["host"] != gone.host)
        self._stopping.wait(self._rng.uniform(4.0, _PAST_LEASE_S))
        with self._calm():
            self._reconfigure(lambda member: True, of=before)
        self._replset.wait_healthy(90.0)

    def _roll_back(self) -> None:
        with self._calm():
            roll_back(self._replset, self._replset.primary())
        self._replset.wait_healthy(90.0)

    def _reconfigure(
        self, stays: Callable[[dict[str, Any]], bool], *, of: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        """Keep only some of these members (those of now); answers the members of before."""
        admin = self._replset.client().admin
        now = admin.command("replSetGetConfig")["config"]
        members = [member for member in of or now["members"] if stays(member)]
        after = {**now, "members": members, "version": now["version"] + 1}
        admin.command({"replSetReconfig": after, "maxTimeMS": 30_000})
        return list(now["members"])

    def _cut_agent_from_node(self) -> None:
        """It sees the others, and so the control database, if its node is not the primary."""
        agent = self._rng.choice(self._agents.all)
        self._cut([agent.machine], [agent.node.machine])

    def _cut_agent_off(self) -> None:
        """It sees its own node alone: control database gone, oplog there."""
        agent = self._rng.choice(self._agents.all)
        self._cut([agent.machine], self._others(agent.node))

    def _cut_node_off(self) -> None:
        """The node and its agent see each other and nobody else."""
        agent = self._rng.choice(self._agents.all)
        agents = [other.machine for other in self._agents.all if other is not agent]
        self._cut([agent.node.machine, agent.machine], [*self._others(agent.node), *agents])

    def _cut_one_way(self) -> None:
        """A node or an agent hears the other nodes and is not heard, or the other way round."""
        agent = self._rng.choice(self._agents.all)
        alone = [self._rng.choice((agent.machine, agent.node.machine))]
        ways = [alone, self._others(agent.node)]
        self._rng.shuffle(ways)
        self._cut(*ways, one_way=True)

    def _others(self, node: MongodNode) -> list[Machine]:
        return [other.machine for other in self._replset.nodes if other is not node]

    def _cut(
        self, some: Sequence[Machine], others: Sequence[Machine], *, one_way: bool = False
    ) -> None:
        assert self._network is not None, "there is no network whose links can be cut"
        with self._calm():
            self._network.cut(some, others, one_way=one_way)
        try:
            self._stopping.wait(self._rng.choice((3.0, _PAST_LEASE_S, 2 * _PAST_LEASE_S)))
        finally:
            self._network.heal()
        self._replset.wait_healthy(90.0)

    def _storage_away(self) -> None:
        with self._away():
            self._stopping.wait(self._storage_gone_s)

    @contextmanager
    def _renamed(self) -> Iterator[None]:
        away = self._repository.with_name(f"{self._repository.name}.away")
        self._repository.rename(away)
        yield
        assert not self._repository.exists(), "somebody made a repository where none was"
        away.rename(self._repository)
