"""Whose share of a backup goes where, in every shape a cluster can have."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError, Refused, TidelogError
from agent.operations.restore.assigning import assign
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.optime import ZERO
from agent.wire.topology import Member, Topology, topology_of, unsharded
from tests.unit.operations.repositories import backup_document


def share(replset: str, shard: str | None = None, *, is_config: bool = False) -> ReplsetPart:
    return ReplsetPart(
        replset=replset,
        shard=shard,
        is_config=is_config,
        manifest_key="m",
        manifest_sha256="0" * 64,
        manifest_size_bytes=1,
        node=f"{replset}/db:27017",
        first_write=ZERO,
        read_end=ZERO,
        collections=0,
        documents=0,
        objects=0,
        size_bytes=0,
        size_uncompressed_bytes=0,
    )


def backup(*shares: ReplsetPart) -> Backup:
    return backup_document("b", "op", *shares)


CFG = share("cfg", is_config=True)
CONFIG_SHARD = share("cfg", "config", is_config=True)
A, B = share("rs-a", "s0"), share("rs-b", "s1")


def cluster(config: str, /, **shards: str) -> Topology:
    """Shards by name with their replica sets."""
    return topology_of(config, [{"_id": k, "host": f"{v}/db:1"} for k, v in shards.items()])


def test_shards_are_found_by_their_replica_sets_whatever_their_names() -> None:
    found = assign(backup(CFG, A, B), cluster("cfg", east="rs-a", west="rs-b"), {})
    assert found.shards == {"s0": "east", "s1": "west"}
    assert found.shares == {"cfg": CFG, "rs-a": A, "rs-b": B}


def test_config_servers_need_no_name_and_shards_may_change_places() -> None:
    there = cluster("meta", s0="rs-a", s1="rs-b")
    found = assign(backup(CFG, A, B), there, {"rs-a": "rs-b", "rs-b": "rs-a"})
    assert found.shards == {"s0": "s1", "s1": "s0"}
    assert found.shares == {"meta": CFG, "rs-b": A, "rs-a": B}


def test_further_shards_get_nothing() -> None:
    found = assign(backup(CFG, A), cluster("cfg", s0="rs-a", s1="rs-b"), {})
    assert found.shares == {"cfg": CFG, "rs-a": A, "rs-b": None}


def test_config_shard_goes_to_a_config_shard() -> None:
    there = topology_of("cfg", [{"_id": "config", "host": "cfg/db:1"}])
    assert there.members == (Member(replset="cfg", shard="config", is_config=True),)
    found = assign(backup(CONFIG_SHARD), there, {})
    assert found.shards == {"config": "config"}
    assert found.shares == {"cfg": CONFIG_SHARD}


@pytest.mark.parametrize(
    ("shares", "there", "remapping", "kind", "says"),
    [
        ((CFG, A, B), cluster("cfg", s0="rs-a"), {}, Refused, "there is no rs-b here"),
        ((CFG, A), cluster("cfg", s9="rs-z"), {}, Refused, "there is no rs-a here"),
        ((CFG, A), unsharded("rs-a"), {}, Refused, "is of a sharded cluster"),
        ((A,), cluster("cfg", s0="rs-a"), {}, Refused, "is of a replica set"),
        ((CONFIG_SHARD,), cluster("cfg", s0="rs-a"), {}, Refused, "is a shard too"),
        ((CFG, A), cluster("cfg", s0="rs-a"), {"rs-q": "rs-a"}, ConfigError, "no replica set rs-q"),
        ((CFG, A), cluster("cfg", s0="rs-a"), {"rs-a": "cfg"}, ConfigError, "restored to cfg"),
        (
            (CFG, A, B),
            cluster("cfg", s0="rs-a", s1="rs-b"),
            {"rs-a": "rs-b"},
            ConfigError,
            "two replica sets would be restored to rs-b",
        ),
    ],
    ids=[
        "fewer shards",
        "other names",
        "no cluster",
        "no shards",
        "no config shard",
        "unknown source",
        "onto config servers",
        "two onto one",
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    shares: tuple[ReplsetPart, ...],
    there: Topology,
    remapping: dict[str, str],
    kind: type[TidelogError],
    says: str,
) -> None:
    with pytest.raises(kind, match=says):
        assign(backup(*shares), there, remapping)


@pytest.mark.parametrize(
    ("shares", "there", "remapping", "hint"),
    [
        ((CFG, A), {"s0": "rs-x"}, {}, "add --replset-remapping rs-x=rs-a"),
        ((CFG, A, B), {"s0": "x", "s1": "y"}, {}, "add --replset-remapping x=rs-a,y=rs-b"),
        (
            (CFG, A, B),
            {"s0": "x", "s1": "y"},
            {"rs-a": "y"},
            "add --replset-remapping y=rs-a,x=rs-b",
        ),
        ((CFG, A, B), {"s0": "rs-a", "s1": "y"}, {}, "add --replset-remapping y=rs-b"),
        ((CFG, A), {"s0": "x"}, {"rs-a": "nowhere"}, "add --replset-remapping x=rs-a"),
        ((CFG, A, B), {"s0": "x"}, {}, "the cluster needs as many shards as the backup has: 2"),
        (
            (CONFIG_SHARD, A),
            {"config": "cfg"},
            {},
            "the cluster needs as many shards as the backup has: 2",
        ),
    ],
)
def test_the_hint_of_other_names_is_the_whole_flag_to_give(
    shares: tuple[ReplsetPart, ...], there: dict[str, str], remapping: dict[str, str], hint: str
) -> None:
    with pytest.raises(Refused) as refused:
        assign(backup(*shares), cluster("cfg", **there), remapping)
    assert refused.value.hint == hint


def test_of_a_replica_set_the_refusal_names_the_one_that_is_here() -> None:
    only = share("rs0")
    with pytest.raises(Refused) as refused:
        assign(backup(only), unsharded("rs0"), {"rs0": "rs-x"})
    assert refused.value.hint == "the replica set here is rs0"
