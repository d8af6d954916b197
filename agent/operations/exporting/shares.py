"""What each replica set contributes to one dump of a cluster.

A dump holds each collection once, as a router would show it. Users and roles are the config
servers'. Documents of a sharded collection come from every shard, which has been restored without
what it does not own; its options and indexes come from the shard that owns its first range, since a
shard that owns none may have been passed over when indexes changed. All else, views and the names
of time series among it, is of the primary shard of the database.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from agent.operations.restore.plan import Plan
from agent.replay.routing import is_users
from agent.store.routing import RoutingTables
from agent.wire.namespaces import logical_name

_ADMIN: Final = "admin"
_META: Final = "meta"
_TIME: Final = ("control.min.", "control.max.")


class Share(Protocol):
    """One server's part of a dump."""

    def holds(self, database: str, collection: str) -> bool:
        """Whether its documents belong into the dump."""

    def describes(self, database: str, collection: str) -> bool:
        """Whether options and indexes are taken from this server."""


class Whole:
    """A replica set by itself: all of it."""

    def holds(self, database: str, collection: str) -> bool:
        """It does."""
        return True

    def describes(self, database: str, collection: str) -> bool:
        """They are."""
        return True


@dataclass(frozen=True, slots=True)
class Tables:
    """Who has what, by the restored routing tables."""

    primaries: Mapping[str, str]
    """The primary shard of each database."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """The shard that owns the first range of each collection in the tables."""
    sharded: tuple[dict[str, Any], ...] = ()
    """`{ns, key, unique}` of each sharded collection, as one would shard it again; the key as
    JSON."""

    @classmethod
    async def read(cls, routing: RoutingTables) -> Tables:
        """From restored config servers."""
        owners: dict[str, str] = {}
        sharded = []
        for row in sorted(await routing.collections(), key=lambda row: str(row["_id"])):
            if not is_users(row["_id"]):
                continue
            async for chunk in routing.chunks(bytes(row["uuid"])):
                owners[row["_id"]] = chunk["shard"]
                break
            if not row.get("unsplittable"):
                sharded.append(described(row))
        return cls(await routing.primaries(), owners, tuple(sharded))


def described(row: Mapping[str, Any]) -> dict[str, Any]:
    """A document of `config.collections` as `{ns, key, unique}`. A time series is sharded by the
    fields of its measurements; the tables have those of its buckets."""
    database, _, collection = row["_id"].partition(".")
    series = row.get("timeseriesFields")
    key = {
        _measured(name, series) if series else name: order if isinstance(order, str) else int(order)
        for name, order in row["key"].items()
    }
    return {
        "ns": f"{database}.{logical_name(collection)}",
        "key": json.dumps(key),
        "unique": bool(row.get("unique", False)),
    }


def _measured(name: str, series: Mapping[str, Any]) -> str:
    for prefix in _TIME:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    first, dot, rest = name.partition(".")
    return f"{series['metaField']}{dot}{rest}" if first == _META else name


@dataclass(frozen=True, slots=True)
class ClusterShare:
    """One replica set of a sharded cluster."""

    plan: Plan
    tables: Tables

    def holds(self, database: str, collection: str) -> bool:
        """Its own, and nothing that routers do not show."""
        if database == _ADMIN:
            return self.plan.target.is_config
        if self.plan.target.shard is None:
            return False
        is_tabled = f"{database}.{collection}" in self.tables.owners
        return is_tabled or self._is_primary(database)

    def describes(self, database: str, collection: str) -> bool:
        """What it holds alone, and what it owns the first range of."""
        if database == _ADMIN:
            return self.plan.target.is_config
        owner = self.tables.owners.get(f"{database}.{collection}")
        return self._is_primary(database) if owner is None else owner == self.plan.target.shard

    def _is_primary(self, database: str) -> bool:
        shard = self.plan.target.shard
        return shard is not None and self.tables.primaries.get(database) == shard
