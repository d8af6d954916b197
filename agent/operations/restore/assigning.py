"""Whose share of a backup goes where: to which replica set, and which shard becomes which.

Replica sets keep their names unless a remapping says otherwise. Config servers go to config servers
whatever they are called, since there is only one place for them. A target may have more shards than
the backup: those take no share, and a full restore empties them. It may not have fewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import ConfigError, Refused
from agent.wire.backups import Backup, ReplsetPart
from agent.wire.topology import Member, Topology


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where everything goes."""

    shares: Mapping[str, ReplsetPart | None]
    """By the replica set here; None for a shard that the backup has nothing for."""
    shards: Mapping[str, str]
    """`{name of a shard in the backup: its name here}`."""


def assign(backup: Backup, topology: Topology, remapping: Mapping[str, str]) -> Assignment:
    """Give each share its place. `remapping` is `{replica set in the backup: replica set here}`.

    Raises `Refused` with the flag to give, `ConfigError` for a remapping that means nothing.
    """
    sources = {share.replset: share for share in backup.replsets}
    _check_kinds(backup, topology)
    unknown = sorted(set(remapping) - set(sources))
    if unknown:
        raise ConfigError(
            f"the backup {backup.id} holds no replica set {unknown[0]}",
            hint=f"it holds {', '.join(sorted(sources))}",
        )
    found: dict[str, ReplsetPart | None] = {}
    shards: dict[str, str] = {}
    for source, share in sources.items():
        member = _place(backup, share, topology, remapping)
        if member.replset in found:
            raise ConfigError(f"two replica sets would be restored to {member.replset}")
        if share.is_config != member.is_config:
            raise ConfigError(
                f"{source} cannot be restored to {member.replset}: config servers go to config"
                " servers, shards to shards"
            )
        if share.shard is not None and member.shard is None:
            raise Refused(
                f"{source} is a shard too, and the config servers {member.replset} are none",
                hint="restore into a cluster whose config servers hold data as well",
            )
        found[member.replset] = share
        if share.shard is not None and member.shard is not None:
            shards[share.shard] = member.shard
    if topology.is_sharded:
        found |= {name: None for name in topology.replsets if name not in found}
    return Assignment(found, shards)


def _check_kinds(backup: Backup, topology: Topology) -> None:
    if backup.is_sharded and not topology.is_sharded:
        raise Refused(
            f"the backup {backup.id} is of a sharded cluster, and this is a replica set",
            hint="restore it into a sharded cluster with at least as many shards",
        )
    if topology.is_sharded and not backup.is_sharded:
        raise Refused(
            f"the backup {backup.id} is of a replica set, and this is a sharded cluster",
            hint="restore it into a replica set, and add that to the cluster as a shard",
        )


def _place(
    backup: Backup, share: ReplsetPart, topology: Topology, remapping: Mapping[str, str]
) -> Member:
    wanted = remapping.get(share.replset)
    if wanted is None and share.is_config:
        return next(member for member in topology.members if member.is_config)
    found = topology.of(wanted or share.replset)
    if found is None:
        proposed = _proposed(backup, share, topology, remapping)
        hint = (
            f"add --replset-remapping {proposed}"
            if proposed is not None
            else _too_few(backup, topology)
        )
        raise Refused(
            f"the backup {backup.id} is of replica set {share.replset}, and there is no "
            f"{wanted or share.replset} here",
            hint=hint,
        )
    return found


def _too_few(backup: Backup, topology: Topology) -> str:
    if not backup.is_sharded:
        return f"the replica set here is {topology.members[0].replset}"
    shards = sum(share.shard is not None for share in backup.replsets)
    return f"the cluster needs as many shards as the backup has: {shards}"


def _proposed(
    backup: Backup, share: ReplsetPart, topology: Topology, remapping: Mapping[str, str]
) -> str | None:
    """The whole flag that gives every replica set of this kind a place; None where they are too
    few."""
    sources = [other.replset for other in backup.replsets if other.is_config == share.is_config]
    here = [m.replset for m in topology.members if m.is_config == share.is_config]
    placed = {source: to for source, to in remapping.items() if to in here}
    missing = [s for s in sources if s not in placed and (s in remapping or s not in here)]
    free = [name for name in here if name not in sources and name not in placed.values()]
    if len(free) < len(missing):
        return None
    pairs = placed | dict(zip(missing, free, strict=False))
    return ",".join(f"{to}={source}" for source, to in pairs.items())
