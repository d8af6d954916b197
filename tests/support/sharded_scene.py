"""What is in a sharded cluster that tests back up and restore, and what it looks like."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.support.cluster_image import ClusterImage
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ShardedCluster
from tests.support.transfers import DATABASE, Moment

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SAME = {"s0": "s0", "s1": "s1"}
"""The shards here by what they were: nothing was renamed."""


class Seen(ClusterImage):
    """Without the database that has orphans."""

    def __init__(self, cluster: ShardedCluster, names: dict[str, str]) -> None:
        super().__init__(cluster, names, only=(DATABASE, "shop"))


def wait_covered(ctl: Ctl, moment: Moment) -> None:
    """Until that can be restored to."""

    def is_covered() -> bool:
        ranges = ctl.ok("list")["pitr"]["ranges"]
        end = ranges[-1]["end_ts"] if ranges else {"T": 0, "I": 0}
        return (end["T"], end["I"]) >= moment

    eventually(is_covered, 60.0, every_s=0.5)


def furnish(cluster: ShardedCluster) -> None:
    """A database on the other shard: unsharded, hashed, and such as will change."""
    cluster.create_database("shop", "s1")
    shop = cluster.client_of("s1")["shop"]
    shop["plain"].insert_many([{"_id": n} for n in range(50)])
    cluster.shard_collection("shop.hashed", {"k": "hashed"})
    for name in ("gone", "again", "refined"):
        cluster.shard_collection(f"shop.{name}", {"k": 1})
        shop[name].insert_many([{"_id": n, "k": n, "j": n} for n in range(50)])
    shop["refined"].create_index([("k", 1), ("j", 1)])
    make_series(cluster, "shop.weather")


def make_series(cluster: ShardedCluster, namespace: str) -> None:
    """A sharded time series with measurements on the first two shards."""
    database, _, name = namespace.partition(".")
    options = {"timeseries": {"timeField": "t", "metaField": "m"}}
    cluster.shard_collection(namespace, {"m": 1}, **options)
    cluster.spread(f"{database}.system.buckets.{name}", "meta", [100])
    for number, shard in enumerate(("s0", "s1")):
        measure(cluster, namespace, shard, 100 * number)


def measure(cluster: ShardedCluster, namespace: str, shard: str, first: int) -> None:
    """Measurements of five sources, the first with this number, on one shard."""
    database, _, name = namespace.partition(".")
    rows = [{"t": _EPOCH + timedelta(hours=n), "m": first + n % 5, "v": n} for n in range(40)]
    cluster.client_of(shard)[database][name].insert_many(rows)
