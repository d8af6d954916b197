"""MongoDB 6.0 that is still told to be compatible with 5.0, as between the two steps of an upgrade.

Such a server does not tell its catalogue as of a moment: it is listed, and the oplog says whether
what was listed stood still.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.mongo.apply.target import collections, shapes
from agent.mongo.catalogue import read_catalogue
from agent.mongo.listing import CatalogueMoved
from agent.wire.namespaces import is_archived
from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.ctl import Ctl
from tests.support.mongod import ReplicaSet
from tests.support.mongod.replset import Client
from tests.support.snapshots import open_node


def _set(client: Client, version: str) -> None:
    client.admin.command({"setFeatureCompatibilityVersion": version})


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent, an empty repository; 6.0 again at the end."""
    with Agents(one_node) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        try:
            yield found
        finally:
            _set(found.client, "6.0")


@contextmanager
def _changes(client: Client) -> Iterator[None]:
    """Collections that come and go."""
    ended = threading.Event()

    def change() -> None:
        for number in count():
            client.churn[f"c{number % 7}"].insert_one({"n": number})
            client.churn[f"c{(number + 3) % 7}"].drop()
            if ended.wait(0.15):
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _seed(client: Client) -> None:
    shop = client.shop
    shop.create_collection("m", timeseries={"timeField": "t", "metaField": "k"})
    shop.m.create_index([("k", 1), ("t", -1)], name="by_k")
    shop.m.insert_many([{"t": datetime(2026, 1, 1, 0, 0, i, tzinfo=UTC), "k": i} for i in range(9)])
    shop.create_collection("log", capped=True, size=8192, max=3)
    shop.create_collection("german", collation={"locale": "de"}, validator={"a": {"$ne": 1}})
    shop.german.create_index("b", unique=True, partialFilterExpression={"c": 1}, hidden=True)
    shop.command({"create": "view", "viewOn": "german", "pipeline": []})


def test_what_was_backed_up_with_5_0_comes_back_also_over_the_change(scene: Scene) -> None:
    client = scene.client
    scene.fill(5)
    _seed(client)
    before = scene.fingerprint()
    _set(client, "5.0")
    scene.enable_pitr(1.0)
    with _changes(client):
        scene.backup()
    client.drop_database("churn")
    name = scene.backup()["name"]
    assert scene.ctl.ok("describe-backup", name)["fcv"] == "5.0"
    client.shop.late.insert_one({"_id": 1})
    _set(client, "6.0")
    after = scene.fingerprint()
    at = client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]
    scene.wait_covered((at.time, at.inc))
    newer = scene.backup()["name"]
    scene.restore("--time", f"{at.time},{at.inc}", "--base-snapshot", name)
    assert scene.fingerprint() == after
    client.shop.large0.drop()
    client.shop.more.insert_one({})
    _set(client, "5.0")
    refused = scene.ctl.fails(3, "restore", newer, "--dry-run")
    assert "feature compatibility version 6.0, and the target has 5.0" in refused
    scene.restore(name)
    _set(client, "6.0")
    assert scene.fingerprint() == before


async def test_what_is_listed_is_what_the_catalogue_says(one_node: ReplicaSet) -> None:
    client = one_node.client()
    _seed(client)

    def ours(rows: Iterable[Any]) -> dict[str, Any]:
        return {row.ns: row for row in rows if is_archived(row.ns)}

    async with open_node(one_node) as node:
        whole = ours(await read_catalogue(node, await node.committed()))
        present = ours(await collections(node))
        shaped = {one.ns: one async for one in shapes(node, ["shop"])}
        _set(client, "5.0")
        try:
            read_at = await node.committed()
            assert ours(await read_catalogue(node, read_at)) == whole
            assert ours(await collections(node)) == present
            assert {one.ns: one async for one in shapes(node, ["shop"])} == shaped
            client.shop.create_collection("new")
            with pytest.raises(CatalogueMoved, match="create in shop"):
                await read_catalogue(node, read_at)
            read_at = await node.committed()
            assert "shop.new" in ours(await read_catalogue(node, read_at))
        finally:
            _set(client, "6.0")
