"""Collections whose indexes may not be listed."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from bson import Binary
from pymongo.errors import OperationFailure

from agent.errors import PermissionDenied
from agent.mongo.listing import listed
from agent.mongo.translate import UNAUTHORIZED


class Guarded:
    """A node with one collection, whose user may list no indexes."""

    is_config = False

    def __init__(self, name: str) -> None:
        self._row = {"name": name, "options": {}, "info": {"uuid": Binary(bytes(16), 4)}}
        self.replset_client = SimpleNamespace(start_session=self._start_session)

    async def _start_session(self) -> Any:
        return nullcontext()

    async def command(self, _database: str, command: dict[str, Any], **_: Any) -> Any:
        if "listIndexes" in command:
            raise OperationFailure("not authorized", UNAUTHORIZED)
        return {"cursor": {"firstBatch": [self._row], "id": 0, "ns": "shop.x"}}


@pytest.mark.parametrize("name", ["system.views", "system.users", "system.profile"])
async def test_what_no_role_may_list_has_the_servers_own_indexes(name: str) -> None:
    node: Any = Guarded(name)
    (found,) = await listed(node, ["shop"])
    assert [index["name"] for index in found.indexes] == ["_id_"]


@pytest.mark.parametrize("name", ["orders", "system.buckets.m", "system.js"])
async def test_indexes_that_a_role_lists_are_never_guessed(name: str) -> None:
    node: Any = Guarded(name)
    with pytest.raises(PermissionDenied, match=f"listing the indexes of shop.{name}"):
        await listed(node, ["shop"])
