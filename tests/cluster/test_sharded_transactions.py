"""A thousand (TIDELOG_TEST_TRANSACTIONS) transactions over two shards in flight at the moment
restored to: each is there on both shards or on none, whatever its entries say where."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bson import Timestamp

from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.mongod.crossing import CrossShardSession

pytestmark = pytest.mark.timeout(600)

IN_FLIGHT = int(os.environ.get("TIDELOG_TEST_TRANSACTIONS", "1000"))
SIDES = {"s0": -1, "s1": 1}
"""Of the key, by shard."""
LONG_S = 300.0
_THREADS = 4


class Open:
    """One transaction that is prepared on both shards."""

    def __init__(self, cluster: ShardedCluster, number: int) -> None:
        self.number = number
        self.session = CrossShardSession(cluster)
        self.session.begin()
        for shard, side in SIDES.items():
            row = {"_id": number, "k": side}
            self.session.run(shard, "app", {"insert": "both", "documents": [row]})
        self.may_commit_at = self.session.prepare()

    def end(self, at: Timestamp | None) -> None:
        """Commit, or abort, and give the sessions back."""
        self.session.carry_out(at)
        self.session.__exit__(None, None, None)


@pytest.fixture
def agents(sharded: ShardedCluster) -> Iterator[Agents]:
    """One beside each node."""
    with Agents(*sharded.sets, lead=sharded.config) as running:
        yield running


def test_thousands_in_flight_are_all_or_nothing(
    sharded: ShardedCluster, agents: Agents, tmp_path: Path
) -> None:
    """A third has committed by then, though no entry that says so lies before the moment; a third
    commits later, a third never."""
    ctl = Ctl(sharded.shards["s0"].uri())
    ctl.configure_filesystem(tmp_path)
    ctl.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
    sharded.create_database("app", "s0")
    sharded.shard_collection("app.both", {"k": 1})
    sharded.spread("app.both", "k", [0])
    backup = ctl.ok("backup", "--wait", within_s=LONG_S)["name"]
    opened = _at_once(lambda number: Open(sharded, number), range(IN_FLIGHT))
    moment = _now(sharded)
    later = Timestamp(moment.time + 1, 1)
    eventually(lambda: _now(sharded) >= later)
    _at_once(lambda one: one.end((one.may_commit_at, later, None)[one.number % 3]), opened)
    _wait_covered(ctl, _now(sharded))
    wanted = ("--time", f"{moment.time},{moment.inc}", "--base-snapshot", backup)
    report = ctl.ok("restore", *wanted, "-y", "--wait", within_s=LONG_S)
    committed = {number for number in range(IN_FLIGHT) if number % 3 == 0}
    for shard, side in SIDES.items():
        rows = list(sharded.client_of(shard)["app"]["both"].find())
        assert {row["_id"] for row in rows} == committed, (shard, report)
        assert {row["k"] for row in rows} == {side}


def _at_once(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, items))


def _now(cluster: ShardedCluster) -> Timestamp:
    """The latest cluster time that any of the sets knows; each is told of it by a write."""
    found: list[Timestamp] = []
    for one in cluster.sets:
        note = {"appendOplogNote": 1, "data": {"msg": "now"}}
        answer = one.client().admin.command(note)
        found.append(answer["$clusterTime"]["clusterTime"])
    return max(found)


def _wait_covered(ctl: Ctl, at: Timestamp) -> None:
    def covered() -> bool:
        ranges = ctl.ok("list")["pitr"]["ranges"]
        return bool(ranges) and (ranges[-1]["end_ts"]["T"], ranges[-1]["end_ts"]["I"]) >= (
            at.time,
            at.inc,
        )

    eventually(covered, 120.0, every_s=0.5)
