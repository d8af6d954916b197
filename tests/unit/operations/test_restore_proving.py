"""What a restore, and a proof, tells of a target that is not what the backup says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.clock import SystemClock
from agent.errors import RestoreFailed
from agent.mongo.listing import Shape
from agent.operations.context import PartContext
from agent.operations.reading import Steps
from agent.operations.restore import proving
from agent.operations.restore.proving import NAMED, of_indexes, prove_principals, told
from agent.operations.scratch.restoring import Restored
from agent.operations.verification import asking
from agent.operations.verification.asking import Share
from agent.replay.catalogue import Collection
from agent.replay.scope import Scope
from agent.wire.namespaces import Selection
from tests.unit.operations.test_proving import plans

IDENTITY = {"v": 2, "key": {"_id": 1}, "name": "_id_"}
UP = {"v": 2, "key": {"a": 1, "b": 1}, "name": "up"}


def collection(*specs: dict[str, Any]) -> Collection:
    """With these indexes and that of `_id`."""
    indexes = {spec["name"]: spec for spec in (IDENTITY, *specs)}
    return Collection(b"u", "db.c", Scope(), options={}, indexes=indexes)


def shape(*specs: dict[str, Any], is_building: bool = False) -> Shape:
    """The same, as the target has it."""
    return Shape("db.c", b"u", {}, (IDENTITY, *specs), is_building)


def test_an_index_beside_or_other_than_those_of_the_backup_is_a_difference() -> None:
    assert of_indexes(collection(UP), shape(UP)) == []
    assert of_indexes(collection(), shape(UP)) == ["the index up of db.c is not of the backup"]
    another = "the index up of db.c is another than that of the backup"
    for changed in (
        {**UP, "key": {"b": 1, "a": 1}},
        {**UP, "unique": True},
        {**UP, "partialFilterExpression": {"a": {"$gt": 1}}},
    ):
        assert of_indexes(collection(UP), shape(changed)) == [another]
        assert of_indexes(collection(changed), shape(UP)) == [another]
    assert len(of_indexes(collection(), shape(is_building=True))) == 1


def test_what_servers_write_in_their_own_way_is_no_difference() -> None:
    old = {**UP, "key": {"a": 1.0, "b": 1.0}, "unique": 1, "sparse": False, "v": 1, "ns": "db.c"}
    assert of_indexes(collection(old), shape({**UP, "unique": True})) == []
    clustered = {"v": 2, "key": {"_id": 1}, "name": "own", "clustered": True}
    assert of_indexes(collection(clustered), shape()) == []


def test_an_index_that_is_missing_fails() -> None:
    with pytest.raises(RestoreFailed, match=r"the index up of db\.c should be on the target"):
        of_indexes(collection(UP), shape())


def test_of_very_many_differences_the_first_are_told_and_how_many_more_there_are() -> None:
    assert told(["a", "b"]) == ["a", "b"]
    many = told([str(number) for number in range(NAMED + 7)])
    assert (len(many), many[-1]) == (NAMED + 1, "7 more differences")


def _principals(monkeypatch: pytest.MonkeyPatch, **held: list[str]) -> None:
    """What the collections of users and roles hold, by `database.name`."""

    async def find_all(_: Any, namespace: str) -> list[dict[str, Any]]:
        key = namespace.removeprefix("admin.").replace(".", "_")
        return [{"_id": name, "db": name.partition(".")[0]} for name in held.get(key, [])]

    monkeypatch.setattr(proving, "find_all", find_all)


def _job(selection: Selection, *namespaces: str) -> Any:
    catalogue = [SimpleNamespace(ns=namespace) for namespace in namespaces]
    return SimpleNamespace(node=None, scope=Scope(selection), catalogue=catalogue)


async def test_users_and_roles_that_were_not_merged_are_differences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _principals(
        monkeypatch,
        system_users=["shop.app", "shop.late", "crm.own"],
        tidelogTmpUsers=["shop.app"],
        system_roles=["admin.made"],
    )
    assert await prove_principals(_job(Selection())) == [
        "the user crm.own is not of the backup",
        "the user shop.late is not of the backup",
        "the role admin.made is not of the backup",
    ]
    of_shop = _job(Selection(include=("shop.*",)), "shop.orders")
    assert await prove_principals(of_shop) == ["the user shop.late is not of the backup"]
    assert await prove_principals(_job(Selection(users_and_roles=False))) == []


async def test_a_user_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    _principals(monkeypatch, system_users=[], tidelogTmpUsers=["shop.app"])
    with pytest.raises(RestoreFailed, match=r"the user shop\.app should be on the target"):
        await prove_principals(_job(Selection()))


async def test_a_proof_finds_what_the_restore_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(asking, "collections", none)
    share = Share(plans()[1])
    report = {"operations_applied": 1}
    found = SimpleNamespace(
        took_s=1.0, differences=("the user a.b is not of the backup",), report=report, node=None
    )
    part = SimpleNamespace(services=SimpleNamespace(clock=SystemClock()))
    await share.ask(cast(Restored, found), Steps(cast(PartContext, part)))
    assert share.problems == ["rs-a: the user a.b is not of the backup"]
