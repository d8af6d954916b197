"""What is taken over, and under which name."""

from __future__ import annotations

import pytest

from agent.errors import ConfigError
from agent.replay.scope import Renaming, Scope, derived_uuid
from agent.wire.namespaces import Selection

A, B = bytes(range(16)), bytes(range(1, 17))


def test_everything_stays_as_it_was() -> None:
    scope = Scope()
    assert scope.is_full
    assert scope.wants(A, "db.c")
    assert not scope.wants(A, "config.system.sessions")
    assert not scope.wants(A, "admin.tidelogLeases")
    assert scope.target_name(A, "db.c") == "db.c"
    assert scope.target_uuid(A, "db.c") == A


def test_users_and_roles_arrive_in_collections_of_our_own() -> None:
    scope = Scope()
    assert scope.target_name(A, "admin.system.users") == "admin.tidelogTmpUsers"
    assert scope.target_uuid(A, "admin.system.users") != A
    assert not Scope(Selection(users_and_roles=False)).wants(A, "admin.system.roles")


def test_a_name_means_what_bears_it_in_the_end() -> None:
    scope = Scope(Selection(("db.c",)), final_names={A: "db.c", B: "db.old"})
    assert scope.wants(A, "db.new")
    assert not scope.wants(B, "db.c")
    assert scope.target_name(A, "db.c") == "db.c"
    waiting = scope.target_name(A, "db.new")
    assert waiting.startswith("db.tidelogTmp.")
    assert waiting.endswith(A.hex())


def test_only_what_was_named_gives_way() -> None:
    scope = Scope(Selection(("db.c", "shop")))
    assert scope.replaces("db.c")
    assert scope.replaces("db.system.buckets.c")
    assert scope.replaces("shop.anything")
    assert not scope.replaces("db.d")
    assert not scope.replaces("admin.system.users")


def test_a_collection_gets_another_name() -> None:
    renaming = Renaming.parse("db.c", "copy.d")
    scope = Scope(Selection(("db.c",)), renaming=renaming, fresh_seed="op")
    assert scope.wants(A, "db.system.buckets.c")
    assert not scope.wants(A, "db.d")
    assert scope.target_name(A, "db.c") == "copy.d"
    assert scope.target_name(A, "db.system.buckets.c") == "copy.system.buckets.d"
    assert scope.target_uuid(A, "db.c") == derived_uuid(f"op/{A.hex()}")
    assert scope.replaces("copy.d")
    assert not scope.replaces("db.c")
    view = {"_id": "db.c", "viewOn": "system.buckets.c", "pipeline": []}
    expected = {"_id": "copy.d", "viewOn": "system.buckets.d", "pipeline": []}
    assert scope.view(view) == expected
    assert scope.view({"_id": "db.v", "viewOn": "c"}) is None


def test_a_database_gets_another_name() -> None:
    scope = Scope(Selection(("db.*",)), renaming=Renaming.parse("db.*", "copy.*"))
    assert scope.target_name(A, "db.a.b") == "copy.a.b"
    assert scope.target_name(A, "db.system.views") == "copy.system.views"
    assert scope.view({"_id": "db.v", "viewOn": "c"}) == {"_id": "copy.v", "viewOn": "c"}
    assert scope.replaces("copy.x")


def test_views_already_there_keep_their_collection() -> None:
    scope = Scope(Selection(("db.*",)), views_on_target={"db": B})
    assert scope.target_uuid(A, "db.system.views") == B
    assert Scope(views_on_target={"db": B}).target_uuid(A, "db.system.views") == A


@pytest.mark.parametrize(("source", "target"), [("db.c", "db.*"), ("db.*", "x.c"), ("a.b", "a.b")])
def test_renamings_without_a_meaning_are_refused(source: str, target: str) -> None:
    with pytest.raises(ConfigError):
        Renaming.parse(source, target)


def test_derived_uuids_are_of_version_4() -> None:
    made = derived_uuid("x")
    assert made == derived_uuid("x")
    assert made[6] >> 4 == 4
    assert made[8] >> 6 == 2
