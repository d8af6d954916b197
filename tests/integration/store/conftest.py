"""An open control database on the shared set of one node."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent.store.connection import Control, open_control
from agent.store.operation_log import OperationLog
from agent.store.schema import ensure_schema
from tests.support.mongod import ReplicaSet


@pytest.fixture
async def control(one_node: ReplicaSet) -> AsyncIterator[Control]:
    opened = await open_control(one_node.uri(), app_name="tests")
    await ensure_schema(opened)
    yield opened
    await opened.aclose()


@pytest.fixture
def operations(control: Control) -> OperationLog:
    return OperationLog(control)
