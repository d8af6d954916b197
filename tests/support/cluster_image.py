"""What a sharded cluster holds at a moment at which nothing is under way, and whether its routing
tables and its data say the same."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from bson import MaxKey, MinKey
from pymongo.errors import PyMongoError

from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.mongod.replset import Client

_FOREIGN: Final = frozenset({"admin", "config", "local"})


class ClusterImage:
    """Hashes of every user's collection on each shard, and the routing of the sharded ones.

    `names` gives the shards here by what they were called before; without it they have kept their
    names. Hashes count what is there, orphans too: let them go first (see `settle`), or look at
    the databases of `only` that have none.
    """

    def __init__(
        self,
        cluster: ShardedCluster,
        names: Mapping[str, str] | None = None,
        *,
        only: Collection[str] | None = None,
    ) -> None:
        here = names or {shard: shard for shard in cluster.shards}
        self.hashes = {
            shard: {
                database: cluster.client_of(name)[database].command("dbHash")["collections"]
                for database in databases(cluster.client_of(name))
                if only is None or database in only
            }
            for shard, name in here.items()
        }
        back = {name: shard for shard, name in here.items()}
        self.routing = {
            row["_id"]: (
                row["key"],
                row["uuid"],
                [(c["min"], c["max"], back[c["shard"]]) for c in cluster.chunks(row["_id"])],
            )
            for row in users_collections(cluster)
        }

    def differences(self, other: ClusterImage) -> list[str]:
        """In words, what the other has otherwise."""
        found = [
            f"{shard}: {database}.{name} is {after.get(database, {}).get(name)}, was"
            f" {before.get(database, {}).get(name)}"
            for shard in self.hashes
            for before, after in [(self.hashes[shard], other.hashes[shard])]
            for database in sorted({*before, *after})
            for name in sorted({*before.get(database, {}), *after.get(database, {})})
            if before.get(database, {}).get(name) != after.get(database, {}).get(name)
        ]
        return found + [
            f"routing of {name} is {other.routing.get(name)}, was {self.routing.get(name)}"
            for name in sorted({*self.routing, *other.routing})
            if self.routing.get(name) != other.routing.get(name)
        ]


def databases(client: Client) -> list[str]:
    """The users' databases of one shard."""
    return sorted(set(client.list_database_names()) - _FOREIGN)


def users_collections(cluster: ShardedCluster) -> list[dict[str, Any]]:
    """The routing documents of the users' sharded collections."""
    found = cluster.config.client()["config"]["collections"].find()
    return [row for row in found if row["_id"].partition(".")[0] not in _FOREIGN]


def settle(cluster: ShardedCluster, within_s: float = 90.0) -> None:
    """Wait until no transaction is open on any shard, all decisions are carried out, and donors
    have deleted what they moved. Nobody may begin anything meanwhile."""

    def is_still() -> bool:
        for shard in cluster.shards:
            client = cluster.client_of(shard)
            running = client.admin.command("serverStatus")["transactions"]
            assert running["currentOpen"] == 0, f"{shard}: {running['currentOpen']} open"
            for name in ("transaction_coordinators", "rangeDeletions"):
                left = client["config"][name].find_one()
                assert left is None, f"{shard}: {left}"
        return True

    eventually(is_still, within_s, every_s=0.2, retry_on=(AssertionError, PyMongoError))


def misrouted(cluster: ShardedCluster) -> list[str]:
    """In words, where routing tables and data disagree: a collection that is not where it should
    be, one with another UUID, ranges with a hole, documents that their shard does not own."""
    found: list[str] = []
    config = cluster.config.client()["config"]
    rows = users_collections(cluster)
    uuids = {row["uuid"] for row in rows}
    found += [
        f"ranges of no collection: {chunk}"
        for chunk in config["chunks"].find({"uuid": {"$nin": [*uuids, *_own_uuids(cluster)]}})
    ]
    for row in rows:
        chunks = cluster.chunks(row["_id"])
        found += _holes(row, chunks)
        for shard in cluster.shards:
            found += _on_shard(cluster, shard, row, chunks)
    return found + _astray(cluster, {row["_id"] for row in rows})


def _own_uuids(cluster: ShardedCluster) -> list[Any]:
    found = cluster.config.client()["config"]["collections"].find({"_id": {"$regex": "^config\\."}})
    return [row["uuid"] for row in found]


def _holes(row: dict[str, Any], chunks: list[dict[str, Any]]) -> list[str]:
    key = list(row["key"])
    bounds = [dict.fromkeys(key, MinKey()), *(chunk["max"] for chunk in chunks)]
    wanted = [chunk["min"] for chunk in chunks] + [dict.fromkeys(key, MaxKey())]
    return [] if bounds == wanted else [f"the ranges of {row['_id']} have holes: {chunks}"]


def _on_shard(
    cluster: ShardedCluster, shard: str, row: dict[str, Any], chunks: list[dict[str, Any]]
) -> list[str]:
    database, _, name = row["_id"].partition(".")
    client = cluster.client_of(shard)
    there = list(client[database].list_collections(filter={"name": name}))
    owns = any(chunk["shard"] == shard for chunk in chunks)
    if not there:
        return [f"{row['_id']} is not on {shard}, which owns a part of it"] if owns else []
    if there[0]["info"]["uuid"] != row["uuid"]:
        return [f"{row['_id']} has another UUID on {shard}"]
    collection = client[database][name]
    index = _index(collection, list(row["key"]))
    if index is None:
        # A shard that gave all its parts away keeps an empty collection, and gets the indexes that
        # came later with the next part.
        is_needed = owns or collection.find_one() is not None
        return [f"{row['_id']} has no index of its shard key on {shard}"] if is_needed else []
    found = []
    for chunk in chunks:
        if chunk["shard"] == shard:
            continue
        low, high = ([(f, chunk[end].get(f, MinKey())) for f, _ in index] for end in ("min", "max"))
        strays = list(collection.find({}, {"_id": 1}).hint(index).min(low).max(high))
        if strays:
            found.append(f"{len(strays)} documents of {row['_id']} on {shard} belong elsewhere")
    return found


def _index(collection: Any, fields: list[str]) -> list[tuple[str, Any]] | None:
    """One that begins with the fields of the shard key."""
    specs = (list(spec["key"].items()) for spec in collection.list_indexes())
    return next((s for s in specs if [name for name, _ in s][: len(fields)] == fields), None)


def _astray(cluster: ShardedCluster, routed: set[str]) -> list[str]:
    primaries = {
        row["_id"]: row["primary"] for row in cluster.config.client()["config"]["databases"].find()
    }
    found = []
    for shard in cluster.shards:
        client = cluster.client_of(shard)
        for database in databases(client):
            if database not in primaries:
                found.append(f"{database} on {shard} is no database of the cluster")
            for name in client[database].list_collection_names(filter={"type": "collection"}):
                where = f"{database}.{name}"
                if name == "system.views" or where in routed:
                    continue
                if primaries.get(database) != shard:
                    found.append(f"{where} is not sharded and lies on {shard}")
    return found
