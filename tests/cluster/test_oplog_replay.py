"""`ctl oplog-replay`: an archived span, applied to data that was restored by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import Agents
from tests.support.compare import diff, fingerprint
from tests.support.ctl import Ctl
from tests.support.eventually import eventually
from tests.support.mongod import ReplicaSet
from tests.support.workload.runner import mark

WITHIN_S = 60.0


@pytest.fixture
def ctl_one(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Ctl]:
    """A client of one node with an agent, a repository, and short slices."""
    with Agents(one_node):
        (tmp_path / "repository").mkdir()
        client = Ctl(one_node.uri())
        client.configure_filesystem(tmp_path / "repository")
        yield client


def covered(ctl: Ctl, moment: Any) -> bool:
    """Whether slices are stored up to a moment."""
    wanted = {"T": moment.time, "I": moment.inc}
    ranges = ctl.ok("list", "--unbacked")["pitr"]["ranges"]
    return any((r["end_ts"]["T"], r["end_ts"]["I"]) >= tuple(wanted.values()) for r in ranges)


def change_everything(client: Any) -> None:
    """Writes, a transaction, and every index command, after the backup."""
    shop = client.shop
    shop.orders.insert_many([{"_id": i, "v": i} for i in range(500, 900)])
    shop.orders.create_index("w")
    shop.orders.drop_index("gone_1")
    shop.command("collMod", "orders", index={"name": "ttl_1", "expireAfterSeconds": 7_200_000})
    shop.new.create_index([("z", 1)], unique=True)
    shop.new.insert_one({"_id": 1, "z": 1})
    shop.new.rename("newer")
    shop.orders.update_many({}, {"$set": {"u": 1}})
    shop.orders.delete_many({"_id": {"$lt": 50}})
    # A unique value that moves from one document to another.
    shop.newer.update_one({"_id": 1}, {"$set": {"z": 2}})
    shop.newer.insert_one({"_id": 2, "z": 1})
    with client.start_session() as session, session.start_transaction():
        shop.orders.insert_one({"_id": "in a transaction"}, session=session)
        shop.newer.insert_one({"_id": 3, "z": 5}, session=session)


def test_a_span_brings_a_restored_backup_to_the_later_moment(
    ctl_one: Ctl, one_node: ReplicaSet
) -> None:
    client = one_node.client()
    client.shop.orders.insert_many([{"_id": i, "v": i} for i in range(500)])
    client.shop.orders.create_index("gone")
    client.shop.orders.create_index("ttl", expireAfterSeconds=3_600_000)
    base = ctl_one.ok("backup", "--wait")
    # Slicing is switched on after the backup, and still carries on from it.
    ctl_one.ok("config", "--set", "pitr.enabled=true", "--set", "pitr.oplogSpanSec=1")
    change_everything(client)
    moment = mark(client)
    wanted = fingerprint(client)
    eventually(lambda: covered(ctl_one, moment), within_s=WITHIN_S)
    ctl_one.ok("restore", base["name"], "--wait", "--yes", within_s=WITHIN_S)
    assert diff(wanted, fingerprint(client)), "the restore alone must not be enough"
    start, end = base["last_write"], f"{moment.time},{moment.inc}"
    span = ("--start", f"{start['T']},{start['I']}", "--end", end)
    restored = fingerprint(client)
    (planned,) = ctl_one.ok("oplog-replay", *span, "--dry-run")["plan"]["replsets"]
    assert planned["restored_to"] == {"T": moment.time, "I": moment.inc}
    assert planned["slices"] >= 1
    assert planned["operations"] > 400
    assert diff(restored, fingerprint(client)) == [], "a dry run changes nothing"
    ctl_one.ok("oplog-replay", *span, "--wait", "--yes", within_s=WITHIN_S)
    assert diff(wanted, fingerprint(client)) == []


def test_a_span_that_is_not_archived_is_refused_naming_what_is(ctl_one: Ctl) -> None:
    now = int(time.time())
    sentence = ctl_one.fails(
        3, "oplog-replay", "--start", f"{now - 60},1", "--end", f"{now},1", "--wait", "--yes"
    )
    assert "no slices begin at or before" in sentence
    span = ("--start", f"{now - 60},1", "--end", f"{now},1", "--dry-run")
    sentence = ctl_one.fails(3, "oplog-replay", *span, "--replset-remapping", "rs-x=rs-y")
    assert "there is no replica set rs-x here" in sentence
