"""What each replica set of a cluster gives to one dump."""

from __future__ import annotations

import pytest

from agent.operations.exporting.shares import ClusterShare, Tables, described
from agent.operations.restore.plan import nothing
from agent.wire.optime import OpTime
from agent.wire.topology import Member, Topology
from tests.unit.operations.repositories import backup_document

AT = OpTime(T=1, I=1)
CONFIG = Member(replset="cfg", is_config=True)
SHARDS = {name: Member(replset=f"rs-{name}", shard=name) for name in ("s0", "s1")}
TABLES = Tables(primaries={"app": "s1"}, owners={"app.events": "s0"})


def share(member: Member) -> ClusterShare:
    backup = backup_document("b", "o")
    topology = Topology(members=(CONFIG, *SHARDS.values()))
    return ClusterShare(nothing(backup, member, topology, AT), TABLES)


@pytest.mark.parametrize(
    ("database", "collection", "holders", "describer"),
    [
        ("app", "events", {"s0", "s1"}, "s0"),
        ("app", "plain", {"s1"}, "s1"),
        ("unrouted", "plain", set(), None),
        ("admin", "system.users", {"cfg"}, "cfg"),
    ],
)
def test_each_collection_is_described_once_and_held_by_those_who_own_it(
    database: str, collection: str, holders: set[str], describer: str | None
) -> None:
    shares = {"cfg": share(CONFIG), **{name: share(one) for name, one in SHARDS.items()}}
    assert {n for n, one in shares.items() if one.holds(database, collection)} == holders
    found = {n for n, one in shares.items() if one.describes(database, collection)}
    assert found == ({describer} if describer is not None else set())


def test_a_config_shard_holds_users_and_its_own() -> None:
    both = share(Member(replset="cfg", shard="s1", is_config=True))
    assert both.holds("admin", "system.users")
    assert both.describes("app", "plain")


def test_the_key_of_a_time_series_is_that_of_its_measurements() -> None:
    row = {
        "_id": "app.system.buckets.weather",
        "key": {"meta.place": 1.0, "control.min.t": 1},
        "timeseriesFields": {"timeField": "t", "metaField": "m"},
    }
    assert described(row) == {
        "ns": "app.weather",
        "key": '{"m.place": 1, "t": 1}',
        "unique": False,
    }


def test_a_hashed_key_stays_hashed() -> None:
    row = {"_id": "app.events", "key": {"meta": "hashed"}, "unique": True}
    assert described(row) == {"ns": "app.events", "key": '{"meta": "hashed"}', "unique": True}
