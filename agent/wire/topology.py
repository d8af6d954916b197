"""Which replica sets a cluster consists of, as its config servers list them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.wire.record import Record


class Member(Record):
    """One replica set of the cluster."""

    replset: str
    shard: str | None = None
    """The name of the shard, which need not be the replica set's; None where it is none."""
    is_config: bool = False
    """Whether these are the config servers. With a config shard they are a shard as well."""
    hosts: tuple[str, ...] = ()
    """`host:port` of its members as the config servers know them; empty for their own."""


class Topology(Record):
    """All replica sets, the lead's first. One alone is no sharded cluster."""

    members: tuple[Member, ...]

    @property
    def is_sharded(self) -> bool:
        """Whether there are config servers."""
        return any(member.is_config for member in self.members)

    @property
    def replsets(self) -> list[str]:
        """Their names."""
        return [member.replset for member in self.members]

    def of(self, replset: str) -> Member | None:
        """What a replica set is in it; None for one that does not belong to it."""
        return next((member for member in self.members if member.replset == replset), None)


def unsharded(replset: str) -> Topology:
    """A replica set by itself."""
    return Topology(members=(Member(replset=replset),))


def topology_of(config: str, shards: Iterable[Mapping[str, Any]]) -> Topology:
    """From the name of the config servers' replica set and the documents of `config.shards`,
    `{_id: shard, host: "replset/host:port,…"}`."""
    lead, others = Member(replset=config, is_config=True), []
    for row in shards:
        replset, _, hosts = str(row["host"]).partition("/")
        if replset == config:
            lead = lead.model_copy(update={"shard": str(row["_id"])})
        else:
            listed = tuple(filter(None, hosts.split(",")))
            others.append(Member(replset=replset, shard=str(row["_id"]), hosts=listed))
    return Topology(members=(lead, *sorted(others, key=lambda member: member.replset)))
