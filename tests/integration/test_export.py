"""`ctl export`: what is written is what mongodump writes, and a loader makes the same of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster.scene import Scene
from tests.support.agents import Agents
from tests.support.compare import assert_same
from tests.support.ctl import Ctl
from tests.support.dumps import load_dump, read_dump
from tests.support.mongod import ReplicaSet, find_mongod


@pytest.fixture
def scene(one_node: ReplicaSet, tmp_path: Path) -> Iterator[Scene]:
    """One node, its agent with a scratch directory and one for exports."""
    for name in ("scratch", "exports"):
        (tmp_path / name).mkdir()
    extra = {
        "TIDELOG_VERIFY__SCRATCHDIR": str(tmp_path / "scratch"),
        "TIDELOG_VERIFY__MONGOD": str(find_mongod()),
        "TIDELOG_EXPORT__DIRECTORY": str(tmp_path / "exports"),
    }
    with Agents(one_node, extra=extra) as agents:
        found = Scene(one_node, agents, Ctl(one_node.uri()), tmp_path / "repository")
        found.open()
        yield found


def test_an_export_is_a_mongodump_directory_of_the_same_data(scene: Scene, tmp_path: Path) -> None:
    scene.fill(5)
    client = scene.client
    client.shop["odd/na:me %"].insert_one({"_id": 1})
    client.shop.create_collection("capped", capped=True, size=4096)
    client.shop.create_collection("weather", timeseries={"timeField": "t", "metaField": "m"})
    client.shop.weather.insert_many(
        {"t": datetime(2026, 1, 1, hour, tzinfo=UTC), "m": "a", "v": hour} for hour in range(5)
    )
    client.shop.create_collection("sevens", viewOn="small0", pipeline=[{"$match": {"n": 0}}])
    client.admin.command("createUser", "reader", pwd="secret", roles=["readAnyDatabase"])
    name = scene.backup()["name"]
    before = scene.fingerprint()
    done = scene.ctl.ok("export", name, "one", "--wait", within_s=180)
    target = tmp_path / "exports" / "one"
    assert done["directory"] == str(target)
    assert [path.name for path in target.parent.iterdir()] == ["one"]
    assert list((tmp_path / "scratch").iterdir()) == []
    found = read_dump(target)
    users = next(one for one in found if one.name == "system.users")
    assert [user["user"] for user in users.documents] == ["reader"]
    for database in client.list_database_names():
        if database not in ("admin", "config", "local"):
            client.drop_database(database)
    load_dump(found, client)
    assert_same(before, scene.fingerprint(), uuids=False)
    refused = scene.ctl.run("export", name, "one", "--wait")
    assert (refused.status, "not empty" in str(refused)) == (3, True)
    outside = scene.ctl.run("export", name, "/tmp/elsewhere", "--wait")
    assert (outside.status, "is not below" in str(outside)) == (3, True)
    some = scene.ctl.ok("export", name, "two", "--ns", "shop.small0", "--wait", within_s=180)
    assert some["collections"] == 1
    assert {one.name for one in read_dump(target.parent / "two")} == {"small0"}
