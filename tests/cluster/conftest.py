"""What the tests of this ring share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import Scene
from tests.cluster.stage import Stage
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet, ShardedCluster


@pytest.fixture
def scene(three_nodes: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """Three nodes, an agent beside each, an empty repository; the agents that run at the end must
    stop with status 0."""
    with Agents(three_nodes) as agents:
        found = Scene(three_nodes, agents, Ctl(three_nodes.uri()), tmp_path / "repository")
        found.open()
        yield found


@pytest.fixture
def stage(sharded: ShardedCluster, tmp_path: Path) -> Iterator[Stage]:
    """Two shards and config servers, an agent beside each, an empty repository."""
    repository = tmp_path / "repository"
    repository.mkdir()
    with Agents(*sharded.sets, lead=sharded.config) as agents:
        found = Stage(sharded, agents, Ctl(sharded.shards["s1"].uri()), repository)
        found.ctl.configure_filesystem(repository)
        yield found
