"""Rings, and the replica sets that tests share.

A test belongs to the ring whose folder it is in. A test that needs mongod is skipped with the
reason where there is none, but never in CI: a ring that is skipped there proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

# As in an agent, and before Motor is imported: agents within this process share its threads, and
# each that waits for a command holds one. With Motor's own few, answers come a second late.
os.environ.setdefault("MOTOR_MAX_WORKERS", "48")

import pytest

from tests.support.agents import Agents
from tests.support.cleaning import clean
from tests.support.ctl import Ctl
from tests.support.deadline import GRACE_S, deadline, keep_stderr
from tests.support.mongod import (
    ClusterOptions,
    ReplicaSet,
    SetOptions,
    ShardedCluster,
    find_mongod,
)
from tests.support.mongod.binary import MongodMissingError
from tests.support.mongod.node import died
from tests.support.mongod.options import Member

RINGS = frozenset({"unit", "contract", "integration", "cluster"})
_HERE = Path(__file__).parent


def pytest_configure() -> None:
    """Output is not captured yet, or not at this moment."""
    keep_stderr()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its ring."""
    for item in items:
        ring = item.path.relative_to(_HERE).parts[0] if item.path.is_relative_to(_HERE) else ""
        if ring in RINGS:
            item.add_marker(getattr(pytest.mark, ring))
        for story in item.iter_markers("story"):
            item.extra_keyword_matches.update(story.args)  # for -k


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test ends, with all that belongs to it, or its process does."""
    own, asked = item.get_closest_marker("timeout"), item.config.getoption("timeout")
    chosen = own.args[0] if own else item.config.getini("timeout") if asked is None else asked
    if not float(chosen) or item.config.getoption("usepdb"):
        return (yield)
    with deadline(item.nodeid, float(chosen) + GRACE_S):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed says which servers died under it, and of what."""
    report = yield
    if report.failed:
        for node in died():
            report.sections.append((f"mongod on port {node.port} died", node.epitaph()))
    return report


@pytest.fixture(scope="session")
def mongod() -> Path:
    """The server's program."""
    try:
        return find_mongod()
    except MongodMissingError as error:
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared_node(mongod: Path) -> Iterator[ReplicaSet]:
    """A set of one node for the whole session; tests take `one_node`."""
    with ReplicaSet(SetOptions(name="one")) as replset:
        yield replset


@pytest.fixture(scope="session")
def shared_replset(mongod: Path) -> Iterator[ReplicaSet]:
    """A set of three nodes for the whole session; tests take `three_nodes`."""
    with ReplicaSet(SetOptions(name="three", members=(Member(),) * 3)) as replset:
        yield replset


@pytest.fixture(scope="session")
def shared_cluster(mongod: Path) -> Iterator[ShardedCluster]:
    """Two shards and config servers of one node each; tests take `sharded`."""
    with ShardedCluster(ClusterOptions()) as cluster:
        yield cluster


@pytest.fixture
def sharded(shared_cluster: ShardedCluster) -> ShardedCluster:
    """The shared sharded cluster, clean, all of its nodes up."""
    shared_cluster.ready()
    shared_cluster.clean()
    return shared_cluster


@pytest.fixture
def one_node(shared_node: ReplicaSet) -> ReplicaSet:
    """The shared set of one node, clean."""
    return _ready(shared_node)


@pytest.fixture
def three_nodes(shared_replset: ReplicaSet) -> ReplicaSet:
    """The shared set of three nodes, clean, all of them up."""
    return _ready(shared_replset)


@pytest.fixture
def agents(three_nodes: ReplicaSet) -> Iterator[Agents]:
    """An agent beside each of the three nodes; all must stop with status 0 at the end."""
    with Agents(three_nodes) as running:
        yield running


@pytest.fixture
def ctl(three_nodes: ReplicaSet) -> Ctl:
    """The client, pointed at the three nodes."""
    return Ctl(three_nodes.uri())


def _ready(replset: ReplicaSet) -> ReplicaSet:
    for node in replset.nodes:
        if node.is_running:
            node.resume()
        else:
            node.start()
    replset.wait_healthy()
    clean(replset.client())
    return replset
