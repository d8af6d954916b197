"""A primary that is cut off has a write that no majority knows: what the next change does then.
And one that is gone with its answer has made a change that nobody has heard of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import pytest

from agent.errors import Conflict, StoreUnavailable
from agent.store.operation_log import OperationLog
from agent.wire.collections import OPERATIONS
from agent.wire.operations import Operation, State
from tests.support.control_model import Document, Fate, ModelCollection, ModelServer

OP_ID = "1" * 24
EPOCH = 7


class _CutOff(ModelCollection):
    """Changes see what the primary has, reads what a majority has."""

    def __init__(self, server: ModelServer) -> None:
        super().__init__(server, OPERATIONS)
        self.confirmed: dict[str, Document] = {}

    async def find_one(self, match: Document, _fields: Any = None) -> Document | None:
        return next((deepcopy(d) for d in self.confirmed.values() if self._fits(d, match)), None)


@pytest.fixture
def collection() -> _CutOff:
    """An operation that the primary has moved to `running`, and a majority knows as `preparing`."""
    server = ModelServer()
    found = _CutOff(server)
    server.collections[OPERATIONS] = found
    known = {
        "_id": OP_ID,
        "kind": "backup",
        "name": "b",
        "state": "preparing",
        "lead_epoch": EPOCH,
        "requested_at": server.now,
        "updated_at": server.now,
    }
    found.confirmed = {OP_ID: known}
    found.documents = {OP_ID: {**known, "state": "running"}}
    return found


class _Commands:
    """Counts the wake-ups."""

    def __init__(self) -> None:
        self.woken: list[str | None] = []

    async def wake(self, op_id: str | None = None) -> None:
        self.woken.append(op_id)


def _log(collection: _CutOff, commands: _Commands | None = None) -> OperationLog:
    server: Any = collection._server
    woken: Any = commands
    return OperationLog(server, woken)


async def _move(collection: _CutOff, before: State, after: State) -> State:
    moved = await _log(collection).transition(OP_ID, before, after, epoch=EPOCH)
    return moved.state


async def test_a_change_is_made_again_until_the_one_before_is_decided(collection: _CutOff) -> None:
    with pytest.raises(StoreUnavailable, match="not confirmed yet"):
        await _move(collection, State.PREPARING, State.RUNNING)
    with pytest.raises(StoreUnavailable, match="not confirmed yet"):
        await _move(collection, State.PREPARING, State.FAILED)


async def test_what_was_rolled_back_is_done_again(collection: _CutOff) -> None:
    collection.documents = deepcopy(collection.confirmed)
    assert await _move(collection, State.PREPARING, State.RUNNING) is State.RUNNING


async def test_what_was_confirmed_is_done(collection: _CutOff) -> None:
    collection.confirmed = deepcopy(collection.documents)
    assert await _move(collection, State.PREPARING, State.RUNNING) is State.RUNNING
    with pytest.raises(Conflict):
        await _move(collection, State.PREPARING, State.FAILED)


async def test_so_is_a_part(collection: _CutOff) -> None:
    part = {"replset": "rs", "state": "running", "epoch": 3, "node": "rs/h:1"}
    for one in (*collection.confirmed.values(), *collection.documents.values()):
        one["parts"] = [dict(part)]
    collection.documents[OP_ID]["parts"] = [{**part, "state": "done"}]
    with pytest.raises(StoreUnavailable, match="not confirmed yet"):
        await _log(collection).update_part(OP_ID, "rs", 3, state=State.FAILED)


async def test_a_change_whose_answer_was_lost_wakes_when_it_is_found_done(
    collection: _CutOff,
) -> None:
    collection.documents = deepcopy(collection.confirmed)
    collection.confirmed = collection.documents
    part = {"replset": "rs", "state": "running", "epoch": 3, "node": "rs/h:1"}
    collection.documents[OP_ID]["parts"] = [part]
    commands = _Commands()
    log = _log(collection, commands)

    async def repeated(change: Callable[[], Awaitable[Operation]]) -> None:
        collection._server.fate = Fate.ANSWER_LOST
        with pytest.raises(StoreUnavailable):
            await change()
        assert commands.woken == []
        await change()
        assert commands.woken == [OP_ID]
        commands.woken.clear()

    await repeated(
        lambda: log.transition(OP_ID, State.PREPARING, State.RUNNING, epoch=EPOCH),
    )
    await repeated(lambda: log.update_part(OP_ID, "rs", 3, state=State.DONE))
