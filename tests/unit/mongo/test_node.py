"""What a node says of itself, and connection strings that cannot name one."""

from __future__ import annotations

from typing import Any

import pytest
from bson import Timestamp

from agent.errors import ConfigError, NodeUnavailable
from agent.mongo.node import Hello, Node, _hello, check_uri
from agent.wire.nodes import Role
from agent.wire.optime import OpTime
from tests.unit.mongo.scripted_node import ScriptedNode, at, batch

_REPLY: dict[str, Any] = {
    "setName": "rs0",
    "me": "db1:27017",
    "secondary": True,
    "isWritablePrimary": False,
    "lastWrite": {
        "opTime": {"ts": Timestamp(90, 1), "t": 3},
        "majorityOpTime": {"ts": Timestamp(80, 1), "t": 3},
    },
    "$clusterTime": {"clusterTime": Timestamp(100, 1)},
}


@pytest.mark.parametrize(
    ("changes", "role"),
    [
        ({}, Role.SECONDARY),
        ({"hidden": True}, Role.HIDDEN),
        ({"hidden": True, "secondaryDelaySecs": 60}, Role.DELAYED),
        ({"secondary": False}, Role.STARTUP),
        ({"secondary": False, "isWritablePrimary": True}, Role.PRIMARY),
    ],
)
def test_the_role_is_what_hello_says(changes: dict[str, Any], role: Role) -> None:
    hello = _hello({**_REPLY, **changes})
    assert hello.role is role
    assert hello.is_primary is (role is Role.PRIMARY)
    assert (hello.replset, hello.host) == ("rs0", "db1:27017")
    assert hello.majority == OpTime(T=80, I=1)


def test_lag_is_behind_the_newest_cluster_time_and_a_primary_has_none() -> None:
    assert _hello(_REPLY).lag_s == 10
    assert _hello({**_REPLY, "secondary": False, "isWritablePrimary": True}).lag_s == 0


def test_a_node_that_has_applied_nothing_yet_is_at_zero() -> None:
    hello = _hello({"setName": "rs0", "me": "db1:27017"})
    assert hello.majority == OpTime(T=0, I=0)
    assert hello.role is Role.STARTUP


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"msg": "isdbgrid"}, "mongos"),
        ({"isWritablePrimary": True}, "standalone"),
        ({"setName": "rs0", "me": "db3:27017", "arbiterOnly": True}, "db3:27017 is an arbiter"),
    ],
)
def test_what_an_agent_cannot_serve_is_refused_with_a_hint(
    reply: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        _hello(reply)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mongodb+srv://cluster.example.com", "whole cluster"),
        ("mongodb://a:1,b:2/?replicaSet=rs0", "names 2 hosts"),
        ("mongodb://user:pass@word@a:1", "connection string"),
        ("postgres://a:1", "connection string"),
        ("mongodb://a:99999", "connection string"),
        ("mongodb://a:1/?retryWrites=perhaps", "connection string"),
        ("", "connection string"),
    ],
)
def test_a_connection_string_that_names_no_single_node_is_a_config_error(
    uri: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_uri(uri)
    assert "pass@word" not in str(caught.value)


async def test_a_certificate_that_is_not_there_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        await Node.open("mongodb://127.0.0.1:1/?tls=true&tlsCAFile=/nowhere/ca.pem")


def test_a_connection_string_of_one_node_is_accepted() -> None:
    check_uri("mongodb://user:p%40ss@db1:27018/?authSource=admin&tls=true")


@pytest.mark.parametrize(
    ("rows", "shard"),
    [
        ([], None),
        ([{"_id": "config", "host": "rs0/db1:27017,db2:27017"}], "config"),
    ],
)
async def test_config_servers_are_a_shard_when_they_are_listed(
    rows: list[dict[str, Any]], shard: str | None
) -> None:
    """Since MongoDB 7 they have the identity of one from the beginning."""
    node = ScriptedNode(
        [batch(*rows), batch({"_id": "shardIdentity", "shardName": "config"})], majority=at(1)
    )
    node.is_config = True
    assert await node.read_shard() == shard
    (asked,) = node.asked
    assert asked["find"] == "shards"


async def test_a_shard_is_what_its_identity_says() -> None:
    node = ScriptedNode(
        [batch({"_id": "shardIdentity", "shardName": "s1"}), batch()], majority=at(1)
    )
    assert await node.read_shard() == "s1"
    assert await node.read_shard() is None


async def test_a_node_that_knows_no_commit_yet_is_not_read_from_the_beginning_of_time() -> None:
    assert await ScriptedNode([], majority=OpTime(T=7, I=1)).committed() == OpTime(T=7, I=1)
    with pytest.raises(NodeUnavailable, match="does not know yet what a majority has"):
        await ScriptedNode([], majority=OpTime(T=0, I=0)).committed()


class Following(ScriptedNode):
    """What is committed moves on by a second with each look, up to a point."""

    def __init__(self, up_to: int) -> None:
        super().__init__([], majority=at(0))
        self._up_to = up_to

    async def hello(self) -> Hello:
        """A little nearer."""
        self._majority = at(min(self._up_to, self._majority.T + 1))
        return await super().hello()


async def test_a_majority_that_comes_nearer_is_waited_for_beyond_the_deadline() -> None:
    hello = await Following(40).wait_majority(at(40), timeout_s=0.5)
    assert hello.majority == at(40), "40 looks take 0.8 s"


async def test_a_majority_that_stands_still_is_not_waited_for() -> None:
    with pytest.raises(NodeUnavailable, match="nothing was"):
        await Following(2).wait_majority(at(3), timeout_s=0.05)
