"""What is covered by the privileges that the server lists, and what is lacking."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.privileges import BACKUP, RESTORE, Privilege, missing

Resource = dict[str, Any]
ANY: Resource = {"db": "", "collection": ""}
VIEWS: Resource = {"db": "", "collection": "system.views"}
BUCKETS: Resource = {"db": "", "system_buckets": ""}
CLUSTER: Resource = {"cluster": True}


def lacking(held: Resource, needed: Resource, database: str = "") -> bool:
    granted = [{"resource": held, "actions": ["find", "insert"]}]
    return bool(missing(granted, [Privilege(needed, ("find",), "reading")], database))


@pytest.mark.parametrize(
    ("held", "needed", "database"),
    [
        (ANY, ANY, ""),
        (ANY, ANY, "shop"),
        (ANY, {"db": "admin", "collection": "tidelogLeases"}, ""),
        ({"db": "shop", "collection": ""}, ANY, "shop"),
        ({"db": "", "collection": "c"}, {"db": "shop", "collection": "c"}, ""),
        (VIEWS, VIEWS, ""),
        ({"db": "shop", "collection": "system.views"}, VIEWS, "shop"),
        # The server leaves the database out where it is any.
        ({"system_buckets": ""}, BUCKETS, ""),
        ({"db": "shop", "system_buckets": ""}, BUCKETS, "shop"),
        (CLUSTER, CLUSTER, ""),
        ({"anyResource": True}, CLUSTER, ""),
        ({"anyResource": True}, VIEWS, ""),
    ],
)
def test_what_is_granted_covers(held: Resource, needed: Resource, database: str) -> None:
    assert not lacking(held, needed, database)


@pytest.mark.parametrize(
    ("held", "needed", "database"),
    [
        (ANY, VIEWS, ""),
        (ANY, BUCKETS, ""),
        (ANY, {"db": "local", "collection": "oplog.rs"}, ""),
        (ANY, CLUSTER, ""),
        (CLUSTER, ANY, ""),
        ({"db": "shop", "collection": ""}, ANY, ""),
        ({"db": "shop", "collection": ""}, ANY, "other"),
        ({"db": "shop", "collection": "c"}, ANY, "shop"),
        ({"db": "other", "collection": ""}, {"db": "admin", "collection": "c"}, "other"),
    ],
)
def test_what_is_granted_does_not_cover(held: Resource, needed: Resource, database: str) -> None:
    assert lacking(held, needed, database)


def test_any_action_is_every_action() -> None:
    everything = [{"resource": {"anyResource": True}, "actions": ["anyAction"]}]
    assert missing(everything, [*BACKUP, *RESTORE]) == []


def test_the_roles_cover_what_is_needed_and_what_lacks_is_named() -> None:
    held = [one.document() for one in (*BACKUP, *RESTORE)]
    assert missing(held, [*BACKUP, *RESTORE]) == []
    held = [one for one in held if "dropIndex" not in one["actions"]]
    (found,) = missing(held, RESTORE)
    assert found.actions == ("createIndex", "dropIndex")
    assert found.where() == "collections of every database"
