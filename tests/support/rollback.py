"""A forced rollback: writes of a primary that nobody else gets, and that it has to take back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from pymongo.errors import AutoReconnect
from pymongo.write_concern import WriteConcern

from tests.support.eventually import eventually
from tests.support.mongod import MongodNode, ReplicaSet
from tests.support.mongod.replset import Client

LOST: Final = "lost"
WRITES: Final = 50


def roll_back(
    replset: ReplicaSet,
    old: MongodNode,
    database: str = "ledger",
    *,
    while_alone: Callable[[Client], object] = lambda _: None,
) -> int:
    """Have the primary write to `lost` alone, kill it, let the others win and it join them; answers
    how many writes were rolled back. `while_alone` is called with a client of the primary when
    nobody follows it any more, before it dies: what is written until then is rolled back, too."""
    others = [node for node in replset.nodes if node is not old]
    alone = replset.connect(replset.uri_of(old), retryWrites=False)
    lost = alone[database].get_collection(LOST, write_concern=WriteConcern(w=1, j=True))
    clients = [replset.connect(replset.uri_of(node)) for node in others]
    stop = {"configureFailPoint": "stopReplProducer"}
    for client in clients:
        client.admin.command({**stop, "mode": "alwaysOn"})

    def is_cut_off() -> bool:
        lost.insert_one({"probe": True})
        at = alone.admin.command("hello")["lastWrite"]["opTime"]["ts"]
        time.sleep(0.5)
        reached = [c.admin.command("hello")["lastWrite"]["opTime"]["ts"] for c in clients]
        return all(one < at for one in reached)

    try:
        eventually(is_cut_off, 30.0)
        lost.insert_many({"_id": number} for number in range(WRITES))
        while_alone(alone)
        old.kill()
    finally:
        alone.close()
        for client in clients:
            client.admin.command({**stop, "mode": "off"})
    new = replset.primary(40.0)
    assert new is not old
    _write_kept(replset, database)
    old.start()
    replset.wait_healthy(60.0)
    found = replset.client()[database][LOST].count_documents({"_id": {"$gte": 0}})
    assert found == 0, f"{found} writes were to be rolled back and are there"
    assert "rollback" in old.log.read_text(errors="replace").lower()
    return WRITES


def _write_kept(replset: ReplicaSet, database: str) -> None:
    """A write of the new primary, so that the old one has something to catch up with."""

    def write() -> bool:
        replset.client()[database].kept.insert_one({})
        return True

    eventually(write, 20.0, retry_on=(AutoReconnect,))
