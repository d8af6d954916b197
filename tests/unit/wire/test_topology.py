"""The replica sets of a cluster, from what its config servers list."""

from __future__ import annotations

from agent.wire.topology import topology_of, unsharded

ROWS = [
    {"_id": "s1", "host": "rs-b/h3:27018,h4:27018"},
    {"_id": "s0", "host": "rs-a/h1:27018,h2:27018"},
]


def test_config_servers_lead_and_shards_keep_their_own_names() -> None:
    found = topology_of("cfg", ROWS)
    assert found.is_sharded
    assert found.replsets == ["cfg", "rs-a", "rs-b"]
    assert [member.shard for member in found.members] == [None, "s0", "s1"]
    assert [member.is_config for member in found.members] == [True, False, False]
    assert found.members[2].hosts == ("h3:27018", "h4:27018")


def test_config_shard_is_one_replica_set_and_both() -> None:
    found = topology_of("cfg", [*ROWS, {"_id": "config", "host": "cfg/h9:27019"}])
    assert found.replsets == ["cfg", "rs-a", "rs-b"]
    lead = found.of("cfg")
    assert lead is not None
    assert (lead.shard, lead.is_config) == ("config", True)


def test_cluster_without_shards_yet_is_its_config_servers() -> None:
    assert topology_of("cfg", []).replsets == ["cfg"]


def test_replica_set_alone_is_no_sharded_cluster() -> None:
    assert unsharded("rs0").replsets == ["rs0"]
    assert not unsharded("rs0").is_sharded
    assert unsharded("rs0").of("rs1") is None
