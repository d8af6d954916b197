"""What the config servers of a sharded cluster know: shards, migrations, resharding, the time.

Of a plain replica set all of it is empty. Reads go to the primary of the lead replica set, at read
concern majority.
"""

from __future__ import annotations

from typing import Any, Final

from agent.store.connection import Control, translated
from agent.store.routing import RoutingTables
from agent.wire.topology import Topology, topology_of, unsharded

Document = dict[str, Any]

_CONFIG: Final = "config"
ROUTER_ALIVE_S: Final = 60


class ClusterView:
    """The cluster as its lead replica set sees it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._config = control.database.client.get_database(
            _CONFIG, read_concern=control.database.read_concern
        )

    @property
    def routing(self) -> RoutingTables:
        """The routing tables; empty for a plain replica set."""
        return RoutingTables(self._control)

    @property
    def is_sharded(self) -> bool:
        """Whether the lead replica set are config servers."""
        return self._control.is_config

    async def topology(self) -> Topology:
        """The replica sets that make up the cluster now."""
        if not self.is_sharded:
            return unsharded(self._control.replset)
        with translated("reading the shards"):
            rows = await self._config["shards"].find({}, {"host": 1}).to_list(None)
        return topology_of(self._control.replset, rows)

    async def routers(self) -> list[str]:
        """The mongos that reported within the last minute (they do every ten seconds)."""
        if not self.is_sharded:
            return []
        since = {"$expr": {"$gt": ["$ping", {"$subtract": ["$$NOW", ROUTER_ALIVE_S * 1000]}]}}
        with translated("reading which mongos run"):
            rows = await self._config["mongos"].find(since, {"_id": 1}).to_list(None)
        return sorted(str(row["_id"]) for row in rows)

    async def migrations(self) -> list[str]:
        """Collections of which a range is being moved now."""
        return await self._namespaces("migrations")

    async def resharding(self) -> list[str]:
        """Collections that are being resharded (unsharded, moved) now."""
        return await self._namespaces("reshardingOperations")

    async def _namespaces(self, collection: str) -> list[str]:
        if not self.is_sharded:
            return []
        with translated(f"reading config.{collection}"):
            rows = await self._config[collection].find({}, {"ns": 1}).to_list(None)
        return sorted({str(row.get("ns", row["_id"])) for row in rows})

    async def hear(self, gossip: Document) -> None:
        """Tell the config servers a `$clusterTime` that another replica set answered: from now on
        they and whoever asks them are not behind it."""
        with translated("passing the cluster time on"):
            async with await self._control.client.start_session(
                causal_consistency=False
            ) as session:
                session.advance_cluster_time(gossip)
                await self._control.database.command("ping", session=session)

    async def tell(self) -> Document:
        """The `$clusterTime` of the config servers, for `Node.note`."""
        with translated("asking for the cluster time"):
            reply = await self._control.database.command("ping")
        return dict(reply["$clusterTime"])
