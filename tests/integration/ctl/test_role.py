"""The roles that `db-role` prints are taken by the server and are enough for the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from tests.support.ctl import Ctl
from tests.support.mongod import Auth, ReplicaSet, SetOptions

PASSWORD = "ü/p@ss:word"


@pytest.fixture(scope="module")
def guarded(mongod: Path) -> Iterator[ReplicaSet]:
    """A set of one node that asks for logins."""
    with ReplicaSet(SetOptions(name="guarded", auth=Auth())) as replset:
        yield replset


def _client_of(replset: ReplicaSet, purpose: str) -> Ctl:
    admin = replset.client().admin
    answer = Ctl("").ok("db-role", purpose)
    known = {role["role"] for role in admin.command("rolesInfo", 1)["roles"]}
    for role in answer["roles"]:
        if role["createRole"] not in known:
            admin.command(role)
    names = [role["createRole"] for role in answer["roles"]]
    admin.command("createUser", purpose, pwd=PASSWORD, roles=names)
    host = replset.nodes[0].host
    return Ctl(f"mongodb://{purpose}:{quote_plus(PASSWORD)}@{host}/?authSource=admin")


@pytest.mark.parametrize("purpose", ["backup", "restore"])
def test_the_role_is_enough_for_the_client(
    guarded: ReplicaSet, purpose: str, tmp_path: Path
) -> None:
    ctl = _client_of(guarded, purpose)
    ctl.configure_filesystem(tmp_path)
    asked = ctl.ok("backup")
    assert ctl.ok("status")["running"][0]["op_id"] == asked["op_id"]
    assert ctl.ok("cancel-backup")["op_id"] == asked["op_id"]
    for reading in (["list"], ["list", "--restore"], ["logs"], ["describe-backup", asked["name"]]):
        ctl.ok(*reading)
    guarded.client().admin["tidelogOperations"].delete_many({})


def test_a_user_without_it_is_told_where_to_get_it(guarded: ReplicaSet) -> None:
    guarded.client().admin.command("createUser", "nobody", pwd="x", roles=[])
    result = Ctl(f"mongodb://nobody:x@{guarded.nodes[0].host}/?authSource=admin").run("status")
    assert result.status == 1
    assert "ctl db-role" in result.value["hint"]
