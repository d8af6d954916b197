"""What belongs into a backup."""

from __future__ import annotations

import pytest

from agent.wire.namespaces import is_archived


@pytest.mark.parametrize(
    "namespace",
    [
        *("local.oplog.rs", "config.system.sessions", "shop.system.profile"),
        *("admin.system.profile", "admin.system.version", "admin.tidelogOperations"),
    ],
)
def test_what_the_server_or_tidelog_keeps_for_itself_is_not_backed_up(namespace: str) -> None:
    assert not is_archived(namespace)


@pytest.mark.parametrize(
    "namespace",
    ["shop.orders", "shop.system.views", "admin.system.users", "admin.notes", "shop.profile"],
)
def test_what_people_made_is_backed_up(namespace: str) -> None:
    assert is_archived(namespace)
