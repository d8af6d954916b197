"""A sharded cluster of real mongod processes, formed without mongos.

There is no mongos in the registries the tests may use, so the cluster is built and changed by the
commands that a mongos sends to the config servers and the shards: the shards then carry real
routing metadata, move real ranges and leave real orphans behind. What only a router does (sending
each document to its shard) is done here by whoever writes: writes to a shard are accepted as they
come, so a test inserts where the routing table says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from bson import MaxKey, MinKey
from pymongo.errors import OperationFailure

from tests.support.cleaning import clean
from tests.support.eventually import eventually
from tests.support.mongod.machine import HERE, Machine
from tests.support.mongod.options import Auth, Member, SetOptions
from tests.support.mongod.replset import Client, ReplicaSet

_MAJORITY = {"w": "majority"}
_PARAMETERS: dict[str, str | int | float] = {
    # 15 minutes unless told: how long a donor keeps orphans for cursors still open.
    "orphanCleanupDelaySecs": 0,
    # Five minutes unless told: how long resharding takes at least.
    "reshardingMinimumOperationDurationMillis": 0,
}


@dataclass(frozen=True)
class ClusterOptions:
    """The smallest cluster that behaves like a real one; shard names are not the sets' names."""

    shards: int = 2
    nodes: int = 1
    """Members of each replica set, the config servers' too."""
    name: str = ""
    """Set before the names of all replica sets, so that two clusters differ."""
    auth: Auth | None = None
    oplog_mb: int = 64
    cache_gb: float = 0.25
    parameters: Mapping[str, str | int | float] | None = None
    machine: Callable[[], Machine] = lambda: HERE
    """Where the next member runs."""


class ShardedCluster:
    """Config servers and shards; methods block, as those of `ReplicaSet` do."""

    def __init__(self, options: ClusterOptions | None = None) -> None:
        self.options = options or ClusterOptions()
        self.config = self._set("cfg", "configsvr")
        self.shards: dict[str, ReplicaSet] = {
            f"s{n}": self._set(f"rs-{chr(ord('a') + n)}", "shardsvr")
            for n in range(self.options.shards)
        }
        """Replica sets by the name of the shard."""

    # --- life ---

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor(len(self.sets)) as pool:
                list(pool.map(ReplicaSet.__enter__, self.sets))
            for name in self.shards:
                self.add_shard(name)
            # A fresh cluster balances; a test that wants that says so.
            self.stop_balancer()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every server."""
        for one in self.sets:
            one.close()

    @property
    def sets(self) -> list[ReplicaSet]:
        """All replica sets, the config servers first."""
        return [self.config, *self.shards.values()]

    def shard_of(self, replset: str) -> str:
        """The shard whose replica set has this name."""
        return next(name for name, one in self.shards.items() if one.name == replset)

    def client_of(self, shard: str) -> Client:
        """A client of the shard's replica set; `config` for the config servers."""
        return (self.config if shard == "config" else self.shards[shard]).client()

    def ready(self) -> None:
        """Start what was stopped and wait until all is healthy."""
        for one in self.sets:
            for node in one.nodes:
                if node.is_running:
                    node.resume()
                else:
                    node.start()
            one.wait_healthy()

    # --- topology ---

    def add_shard(self, name: str, replset: ReplicaSet | None = None) -> None:
        """Make a running replica set a shard of this name."""
        one = self.shards[name] if replset is None else replset
        hosts = ",".join(node.host for node in one.data_nodes)
        self.on_config({"_configsvrAddShard": f"{one.name}/{hosts}", "name": name})
        self.shards[name] = one

    def remove_shard(self, name: str) -> ReplicaSet:
        """Remove an empty shard; its replica set runs on, for the caller to close."""

        def drained() -> bool:
            answer = self.on_config({"_configsvrRemoveShard": name})
            return bool(answer["state"] == "completed")

        eventually(drained, 30.0)
        return self.shards.pop(name)

    def new_set(self, suffix: str) -> AbstractContextManager[ReplicaSet]:
        """A further replica set that may become a shard."""
        return self._set(suffix, "shardsvr")

    # --- balancer ---

    def stop_balancer(self) -> None:
        """What `sh.stopBalancer()` does."""
        self.config.client().admin.command({"_configsvrBalancerStop": 1, "maxTimeMS": 60_000})

    def start_balancer(self) -> None:
        """What `sh.startBalancer()` does."""
        self.config.client().admin.command({"_configsvrBalancerStart": 1, "maxTimeMS": 60_000})

    def balancer_setting(self) -> dict[str, Any] | None:
        """The balancer's document in `config.settings`."""
        return self.config.client()["config"]["settings"].find_one({"_id": "balancer"})

    # --- databases and collections ---

    def create_database(self, name: str, primary: str = "s0") -> None:
        """Create a database whose primary shard is `primary`."""
        self.on_config({"_configsvrCreateDatabase": name, "primaryShardId": primary})

    def database(self, name: str) -> dict[str, Any]:
        """The document of a database in the routing table."""
        found = self.config.client()["config"]["databases"].find_one({"_id": name})
        assert found is not None, f"no database {name}"
        return found

    def move_primary(self, name: str, to: str) -> None:
        """`movePrimary`: another shard becomes the primary, and takes what is not sharded."""
        entry = self.database(name)
        order = {"_shardsvrMovePrimary": name, "to": to, "databaseVersion": entry["version"]}
        self.client_of(entry["primary"]).admin.command({**order, "writeConcern": _MAJORITY})

    def shard_collection(self, namespace: str, key: Mapping[str, Any], **options: Any) -> None:
        """Create a sharded collection with one chunk on the primary shard (hashed: on all)."""
        if "hashed" in key.values():
            options = {
                "unique": False,
                "numInitialChunks": 4,
                "presplitHashedZones": False,
            } | options
        self.on_primary_shard(namespace, "_shardsvrCreateCollection", shardKey=dict(key), **options)

    def drop_collection(self, namespace: str) -> None:
        """Drop a collection, sharded or not, on all shards."""
        self.on_primary_shard(namespace, "_shardsvrDropCollection")

    def drop_database(self, name: str) -> None:
        """Drop a database on all shards."""
        entry = self.database(name)
        self.client_of(entry["primary"])[name].command(
            {
                "_shardsvrDropDatabase": 1,
                "databaseVersion": entry["version"],
                "writeConcern": _MAJORITY,
            }
        )

    def rename_collection(self, namespace: str, to: str, *, drop_target: bool = False) -> None:
        """Rename a collection, sharded or not."""
        self.on_primary_shard(namespace, "_shardsvrRenameCollection", to=to, dropTarget=drop_target)

    def refine_key(self, namespace: str, key: Mapping[str, Any]) -> None:
        """`refineCollectionShardKey`: append fields to the shard key."""
        entry = self.routing(namespace)
        assert entry is not None
        self.on_primary_shard(
            namespace,
            "_shardsvrRefineCollectionShardKey",
            newShardKey=dict(key),
            collectionUUID=entry["uuid"],
        )

    def reshard(self, namespace: str, key: Mapping[str, Any]) -> None:
        """`reshardCollection`: the collection is rewritten under another shard key."""
        order = {"_configsvrReshardCollection": namespace, "key": dict(key), "unique": False}
        self.on_config({**order, "numInitialChunks": 2})

    def on_primary_shard(self, namespace: str, command: str, **fields: Any) -> dict[str, Any]:
        """Send a command about a collection as mongos does: to the primary shard, with versions."""
        database, _, collection = namespace.partition(".")
        entry = self.database(database)
        order = {command: collection, **fields, "databaseVersion": entry["version"]}
        answer = self.client_of(entry["primary"])[database].command(
            {**order, "writeConcern": _MAJORITY}
        )
        return dict(answer)

    def on_config(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Send a command to the config servers."""
        return dict(self.config.client().admin.command({**order, "writeConcern": _MAJORITY}))

    # --- ranges ---

    def routing(self, namespace: str) -> dict[str, Any] | None:
        """The document of a sharded collection in `config.collections`."""
        return self.config.client()["config"]["collections"].find_one({"_id": namespace})

    def chunks(self, namespace: str) -> list[dict[str, Any]]:
        """Its ranges in order: documents of `config.chunks`."""
        entry = self.routing(namespace)
        if entry is None:
            return []
        found = self.config.client()["config"]["chunks"].find({"uuid": entry["uuid"]})
        return list(found.sort("min", 1))

    def move_range(
        self,
        namespace: str,
        to: str,
        low: Mapping[str, Any],
        high: Mapping[str, Any],
        **options: Any,
    ) -> None:
        """Move `[low, high)` to a shard; the donor keeps its copies as orphans until it cleans."""
        order = {"_configsvrMoveRange": namespace, "toShard": to, "min": low, "max": high}
        self.on_config({**order, **options})

    def split(self, namespace: str, *at: Mapping[str, Any]) -> None:
        """Cut the range that holds them at these keys; it stays where it is."""
        (chunk,) = self.chunks(namespace)
        row = self.routing(namespace)
        assert row is not None
        order = {"splitChunk": namespace, "from": chunk["shard"], "keyPattern": row["key"]}
        bounds = {"min": chunk["min"], "max": chunk["max"], "splitKeys": list(at)}
        version = {"epoch": row["lastmodEpoch"], "timestamp": row["timestamp"]}
        self.client_of(chunk["shard"]).admin.command({**order, **bounds, **version})

    def merge(self, namespace: str, low: Mapping[str, Any], high: Mapping[str, Any]) -> None:
        """Join all ranges of one shard in `[low, high)`."""
        row = self.routing(namespace)
        assert row is not None
        (first,) = [chunk for chunk in self.chunks(namespace) if chunk["min"] == low]
        order = {"_shardsvrMergeChunks": namespace, "bounds": [low, high]}
        version = {"epoch": row["lastmodEpoch"], "timestamp": row["timestamp"]}
        self.client_of(first["shard"]).admin.command({**order, **version})

    def spread(self, namespace: str, key: str, splits: Sequence[Any]) -> None:
        """Cut a fresh range-sharded collection at `splits`; deal the ranges to the shards in turn.

        Each move cuts the range off what its owner keeps, so neighbours on one shard may be one.
        """
        bounds = [MinKey(), *splits, MaxKey()]
        names = list(self.shards)
        home = self.database(namespace.partition(".")[0])["primary"]
        for n, (low, high) in enumerate(pairwise(bounds)):
            to = names[n % len(names)]
            if to != home:
                self.move_range(namespace, to, {key: low}, {key: high}, waitForDelete=True)

    def hold_range_deletions(self, shard: str, *, on: bool) -> None:
        """Keep a shard's orphans where they are, or let its present primary delete them."""
        mode = "alwaysOn" if on else "off"
        client = self.client_of(shard)
        client.admin.command({"configureFailPoint": "suspendRangeDeletion", "mode": mode})

    # --- between tests ---

    def clean(self) -> None:
        """Take all sets back to where a test may begin: no user's data, no routing, no balancer."""
        for shard in self.shards:
            self.hold_range_deletions(shard, on=False)
        config = self.config.client()["config"]
        for entry in list(config["databases"].find()):
            try:
                self.drop_database(entry["_id"])
            except OperationFailure:
                self._uproot(entry["_id"])
        for name in ("tags", "collections", "chunks", "databases"):
            config[name].delete_many({})
        config["settings"].delete_many({"_id": {"$ne": "balancer"}})
        self.stop_balancer()
        for one in self.sets:
            clean(one.client(), keep_user=self.options.auth.user if self.options.auth else None)

    def _uproot(self, name: str) -> None:
        # A test that wrote routing documents by hand may leave what the server itself cannot drop.
        for one in self.shards.values():
            one.client().drop_database(name)
            one.client().admin.command({"_flushDatabaseCacheUpdates": name})

    def _set(self, suffix: str, role: Any) -> ReplicaSet:
        chosen = self.options
        return ReplicaSet(
            SetOptions(
                name=f"{chosen.name}{suffix}",
                members=(Member(),) * chosen.nodes,
                auth=chosen.auth,
                oplog_mb=chosen.oplog_mb,
                cache_gb=chosen.cache_gb,
                parameters={**_PARAMETERS, **(chosen.parameters or {})},
                cluster_role=role,
                machine=chosen.machine,
            )
        )
