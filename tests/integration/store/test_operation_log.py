"""Operations on a real server: every change is one compare-and-set, fenced by its epoch."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from agent.errors import Conflict, LeaseLost, NotFound, OperationCancelled, Refused
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control
from agent.store.operation_log import OperationLog
from agent.wire.collections import COMMANDS, OPERATIONS
from agent.wire.ids import name_for
from agent.wire.operations import ErrorRecord, Kind, Operation, Progress, State
from agent.wire.settings import load_yaml
from tests.support.mongod import ReplicaSet

ERROR = ErrorRecord(type="StorageFull", message="no space left", hint="free space", node="a")


async def submitted(operations: OperationLog, kind: Kind = Kind.BACKUP, **given: Any) -> Operation:
    return await operations.submit(kind, {"type": "logical"}, requested_by="me@here", **given)


async def running(operations: OperationLog, *replsets: str, epoch: int = 1) -> Operation:
    """An operation led with an epoch, each of its parts taken with the same."""
    op = await submitted(operations)
    await operations.take_lead(op.id, "rs0/lead:1", epoch)
    await operations.set_parts(op.id, epoch, list(replsets))
    await operations.transition(op.id, State.REQUESTED, State.ELECTING, epoch=epoch)
    for replset in replsets:
        await operations.take_part(op.id, replset, f"{replset}/worker:1", epoch)
    await operations.transition(op.id, State.ELECTING, State.PREPARING, epoch=epoch)
    return await operations.transition(op.id, State.PREPARING, State.RUNNING, epoch=epoch)


async def test_a_request_has_the_servers_time_for_a_name(operations: OperationLog) -> None:
    op = await submitted(operations)
    assert re.fullmatch("[0-9a-f]{24}", op.id)
    assert op.name == name_for(op.requested_at)
    assert (op.kind, op.state, op.requested_by) == (Kind.BACKUP, State.REQUESTED, "me@here")
    assert op.history[0].state == "requested"
    assert await operations.get(op.id) == op
    assert await operations.find(op.name, Kind.BACKUP) == op
    assert await operations.find(op.name, Kind.RESTORE) is None


async def test_a_wrong_clock_of_the_client_changes_nothing(
    operations: OperationLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 86_400 * 365)
    first = await submitted(operations)
    monkeypatch.undo()
    assert abs(first.requested_at.timestamp() - time.time()) < 60


@pytest.mark.story("F11", "PBM-1551")
async def test_two_requests_in_one_second_are_two(operations: OperationLog) -> None:
    made = [await submitted(operations, Kind.DELETE_BACKUP) for _ in range(12)]
    assert len({op.id for op in made}) == 12
    assert len({op.name for op in made}) == 12
    seconds = [op.requested_at.replace(microsecond=0) for op in made]
    assert any(op.name.endswith("Z-2") for op in made), seconds


async def test_of_many_exclusive_requests_at_once_one_is_accepted(
    operations: OperationLog,
) -> None:
    async def ask() -> Operation | Conflict:
        try:
            return await submitted(operations)
        except Conflict as error:
            return error

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask()) for _ in range(20)]
    answers = [task.result() for task in asked]
    accepted = [answer for answer in answers if isinstance(answer, Operation)]
    refused = [str(answer) for answer in answers if isinstance(answer, Conflict)]
    assert len(accepted) == 1
    expected = f"another operation in progress: backup {accepted[0].name} ({accepted[0].id})"
    assert refused == [expected] * 19


async def test_queueing_is_advised_only_where_it_is_offered(operations: OperationLog) -> None:
    await submitted(operations)
    for kind, is_advised in ((Kind.BACKUP, True), (Kind.RESTORE, True), (Kind.RESYNC, False)):
        with pytest.raises(Conflict) as refused:
            await submitted(operations, kind)
        assert ("--queue" in refused.value.hint) == is_advised


async def test_what_runs_beside_others_is_not_refused(operations: OperationLog) -> None:
    await submitted(operations)
    assert (await submitted(operations, Kind.DELETE_BACKUP)).slot is None


async def test_queued_requests_begin_in_order(operations: OperationLog) -> None:
    first = await submitted(operations, queue=True)
    assert not first.queued, "nothing was in its way"
    second, third = [await submitted(operations, queue=True) for _ in range(2)]
    assert (second.queued, third.queued) == (True, True)
    assert await operations.promote_queued() is None
    for before, after in ((first, second), (second, third)):
        await operations.take_lead(before.id, "a", 1)
        await operations.transition(before.id, State.REQUESTED, State.FAILED, epoch=1)
        begun = await operations.promote_queued()
        assert begun is not None
        assert (begun.id, begun.queued, begun.slot) == (after.id, False, "exclusive")


async def test_a_queued_request_can_be_cancelled_at_once(operations: OperationLog) -> None:
    await submitted(operations)
    waiting = await submitted(operations, queue=True)
    assert (await operations.request_cancel(waiting.id)).state is State.CANCELLED


async def test_what_nobody_has_begun_is_cancelled_at_once(operations: OperationLog) -> None:
    for kind in (Kind.BACKUP, Kind.RESTORE):
        asked = await submitted(operations, kind)
        over = await operations.request_cancel(asked.id)
        assert (over.state, over.slot) == (State.CANCELLED, None), "and the way is free"
        with pytest.raises(LeaseLost, match="is over: cancelled"):
            await operations.take_lead(asked.id, "a", 1)
        with pytest.raises(Refused, match="cannot be cancelled: it is cancelled"):
            await operations.request_cancel(asked.id)


async def test_a_restore_that_somebody_leads_is_not_cancelled(operations: OperationLog) -> None:
    asked = await submitted(operations, Kind.RESTORE)
    await operations.take_lead(asked.id, "a", 1)
    with pytest.raises(Refused, match="cannot be cancelled: it is requested"):
        await operations.request_cancel(asked.id)
    assert not (await operations.get(asked.id)).cancel_requested


async def test_a_name_can_be_given_once(operations: OperationLog) -> None:
    await submitted(operations, Kind.DELETE_BACKUP, name="mine")
    with pytest.raises(Conflict, match="named mine already"):
        await submitted(operations, Kind.DELETE_BACKUP, name="mine")


async def test_texts_of_people_are_never_expressions(operations: OperationLog) -> None:
    spec = {"hold": "$$NOW", "ns": ["$name", "a.$b"], "nested": {"$set": 1, "a.b": 2}}
    op = await operations.submit(Kind.DELETE_BACKUP, spec, requested_by="$$ROOT", name="$name")
    assert (op.spec, op.requested_by, op.name) == (spec, "$$ROOT", "$name")


async def test_an_operation_goes_its_way(operations: OperationLog) -> None:
    op = await running(operations, "rs0", "rs1")
    for replset in ("rs0", "rs1"):
        await operations.update_part(op.id, replset, 1, state=State.RUNNING)
        await operations.update_part(op.id, replset, 1, state=State.DONE, result={"n": 1})
    await operations.transition(op.id, State.RUNNING, State.PUBLISHING, epoch=1)
    done = await operations.transition(
        op.id, State.PUBLISHING, State.DONE, epoch=1, result={"size": 7}
    )
    assert (done.state, done.result, done.slot) == (State.DONE, {"size": 7}, None)
    assert done.finished_at is not None
    assert done.finished_at >= done.requested_at
    assert [entry.state for entry in done.history if entry.replset is None] == [
        *("requested", "led", "electing", "preparing", "running", "publishing", "done")
    ]
    nodes = {entry.replset: entry.node for entry in done.history if entry.replset}
    assert nodes == {"rs0": "rs0/worker:1", "rs1": "rs1/worker:1"}
    assert await operations.active() == []
    assert [one.id for one in await operations.recent()] == [op.id]
    await submitted(operations)  # the slot is free


async def test_a_change_from_the_wrong_state_is_a_conflict(operations: OperationLog) -> None:
    op = await running(operations)
    with pytest.raises(Conflict, match="is running"):
        await operations.transition(op.id, State.REQUESTED, State.ELECTING, epoch=1)
    with pytest.raises(ValueError, match="cannot go"):
        await operations.transition(op.id, State.RUNNING, State.REQUESTED, epoch=1)


async def test_a_former_lead_changes_nothing(operations: OperationLog) -> None:
    op = await running(operations, "rs0")
    taken = await operations.take_lead(op.id, "rs0/other:1", 5)
    assert (taken.lead_node, taken.lead_epoch, taken.attempts) == ("rs0/other:1", 5, 2)
    attempts = [
        operations.transition(op.id, State.RUNNING, State.PUBLISHING, epoch=1),
        operations.merge_result(op.id, 1, {"x": 1}),
        operations.pin_settings(op.id, 1, 9),
        operations.note(op.id, 1, "still here"),
        operations.take_lead(op.id, "rs0/lead:1", 4),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost, match="rs0/other:1 leads"):
            await attempt
    assert (await operations.get(op.id)).result == {}


async def test_what_is_over_has_no_new_lead(operations: OperationLog) -> None:
    op = await running(operations, "rs0")
    await operations.transition(op.id, State.RUNNING, State.CANCELLED, epoch=1)
    with pytest.raises(LeaseLost, match="is over: cancelled"):
        await operations.take_lead(op.id, "rs0/other:1", 5)
    assert (await operations.get(op.id)).lead_epoch == 1


async def test_a_former_worker_changes_nothing(operations: OperationLog) -> None:
    op = await running(operations, "rs0")
    await operations.take_part(op.id, "rs0", "rs0/other:1", 2)
    before = await operations.get(op.id)
    attempts = [
        operations.update_part(op.id, "rs0", 1, progress=Progress(bytes_done=1)),
        operations.update_part(op.id, "rs0", 1, state=State.DONE, result={"x": 1}),
        operations.hand_over_part(op.id, "rs0", 1, note="late"),
        operations.take_part(op.id, "rs0", "rs0/worker:1", 1),
    ]
    for attempt in attempts:
        with pytest.raises(LeaseLost, match="rs0/other:1 works"):
            await attempt
    assert await operations.get(op.id) == before


async def test_the_end_of_an_operation_fences_its_workers(operations: OperationLog) -> None:
    op = await running(operations, "rs0", "rs1")
    await operations.update_part(op.id, "rs1", 1, state=State.DONE)
    failed = await operations.transition(op.id, State.RUNNING, State.FAILED, epoch=1, error=ERROR)
    assert failed.error == ERROR
    assert [part.state for part in failed.parts] == [State.FAILED, State.DONE]
    with pytest.raises(LeaseLost):
        await operations.update_part(op.id, "rs0", 1, result={"x": 1})
    with pytest.raises(LeaseLost):
        await operations.take_part(op.id, "rs0", "rs0/other:1", 9)


async def test_a_part_keeps_what_is_written_and_merges_results(operations: OperationLog) -> None:
    op = await running(operations, "rs0", "rs1")
    progress = Progress(stage="reading", bytes_done=5, bytes_total=9)
    await operations.update_part(op.id, "rs0", 1, progress=progress)
    await operations.update_part(op.id, "rs0", 1, result={"a": 1, "b": {"c": 1}})
    found = await operations.update_part(op.id, "rs0", 1, result={"b": "$b"}, note="a note")
    part = found.part("rs0")
    assert part is not None
    assert (part.progress, part.result) == (progress, {"a": 1, "b": "$b"})
    assert part.attempts == 1
    other = found.part("rs1")
    assert other is not None
    assert other.result == {}
    assert found.history[-1].note == "a note"


async def test_handing_over_does_not_count_as_an_attempt(operations: OperationLog) -> None:
    op = await running(operations, "rs0")
    await operations.hand_over_part(op.id, "rs0", 1, note="the agent stops")
    found = await operations.take_part(op.id, "rs0", "rs0/other:1", 2)
    assert found.part("rs0").attempts == 1  # type: ignore[union-attr]  # it has this part


async def test_a_write_whose_answer_was_lost_may_be_repeated(operations: OperationLog) -> None:
    op = await submitted(operations)
    await operations.take_lead(op.id, "a", 3)
    await operations.take_lead(op.id, "a", 3)
    await operations.set_parts(op.id, 3, ["rs0"])
    for _ in range(2):
        await operations.transition(op.id, State.REQUESTED, State.ELECTING, epoch=3)
    for _ in range(2):
        await operations.take_part(op.id, "rs0", "b", 2)
    for _ in range(2):
        await operations.update_part(op.id, "rs0", 2, state=State.DONE, result={"x": 1})
    found = await operations.get(op.id)
    assert found.part("rs0").attempts == 1  # type: ignore[union-attr]  # it has this part


async def test_cancelling_stops_workers_and_publishing(operations: OperationLog) -> None:
    op = await running(operations, "rs0")
    assert (await operations.request_cancel(op.id)).cancel_requested
    with pytest.raises(OperationCancelled):
        await operations.transition(op.id, State.RUNNING, State.PUBLISHING, epoch=1)
    with pytest.raises(OperationCancelled):
        await operations.take_part(op.id, "rs0", "rs0/other:1", 2)
    await operations.update_part(op.id, "rs0", 1, state=State.CANCELLED)
    over = await operations.transition(op.id, State.RUNNING, State.CANCELLED, epoch=1)
    assert over.state is State.CANCELLED


async def test_it_can_be_too_late_to_cancel(operations: OperationLog) -> None:
    op = await running(operations)
    await operations.transition(op.id, State.RUNNING, State.PUBLISHING, epoch=1)
    with pytest.raises(Refused, match="cannot be cancelled: it is publishing"):
        await operations.request_cancel(op.id)
    with pytest.raises(NotFound):
        await operations.request_cancel("f" * 24)


async def test_the_settings_it_began_with_are_pinned(operations: OperationLog) -> None:
    op = await submitted(operations)
    settings = load_yaml("backup: {priority: {a.b:1: 2}, compression: none}")
    await operations.take_lead(op.id, "a", 1)
    found = await operations.set_parts(op.id, 1, [], settings=settings, version=7)
    assert found.settings_version == 7
    assert type(settings).from_document(found.settings) == settings


async def test_history_is_bounded(operations: OperationLog) -> None:
    op = await running(operations)
    for number in range(230):
        await operations.note(op.id, 1, f"note {number}")
    history = (await operations.get(op.id)).history
    assert len(history) == 200
    assert history[-1].note == "note 229"


async def test_old_operations_are_forgotten_but_none_that_is_not_over(
    operations: OperationLog,
) -> None:
    waiting = await submitted(operations)
    over = []
    for _ in range(4):
        op = await submitted(operations, Kind.DELETE_BACKUP)
        await operations.take_lead(op.id, "a", 1)
        await operations.transition(op.id, State.REQUESTED, State.FAILED, epoch=1)
        over.append(op.id)
    assert await operations.prune(keep=1) == 3
    assert {op.id for op in await operations.recent()} == {waiting.id, over[-1]}


async def test_only_what_somebody_waits_for_wakes(
    operations: OperationLog, one_node: ReplicaSet
) -> None:
    """Each wake-up has every agent read from the one primary that the clients write to."""

    def wakes() -> int:
        return one_node.client().admin[COMMANDS].count_documents({"op_id": {"$ne": None}})

    before = wakes()
    op = await running(operations, "rs0")
    # The request, the election, the part that is taken and the beginning of the work.
    assert wakes() == before + 4
    await operations.update_part(op.id, "rs0", 1, state=State.RUNNING)
    await operations.update_part(op.id, "rs0", 1, progress=Progress(bytes_done=1))
    assert wakes() == before + 4
    await operations.update_part(op.id, "rs0", 1, result={"read_end": 1})
    await operations.update_part(op.id, "rs0", 1, state=State.DONE)
    assert wakes() == before + 6
    await operations.transition(op.id, State.RUNNING, State.PUBLISHING, epoch=1)
    assert wakes() == before + 6
    await operations.transition(op.id, State.PUBLISHING, State.DONE, epoch=1)
    assert wakes() == before + 7


async def test_a_kind_of_a_newer_version_is_seen_as_unknown(
    operations: OperationLog, one_node: ReplicaSet
) -> None:
    op = await submitted(operations, Kind.DELETE_BACKUP)
    collection = one_node.client().admin[OPERATIONS]
    collection.update_one({"_id": op.id}, {"$set": {"kind": "teleport", "novelty": {"a": 1}}})
    assert [one.kind for one in await operations.active()] == [Kind.UNKNOWN]
    collection.update_one({"_id": op.id}, {"$set": {"requested_at": "tomorrow"}})
    assert await operations.active() == []


async def test_a_wake_up_that_cannot_be_written_does_not_fail_the_change(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = CommandQueue(control)
    await control.database.drop_collection(COMMANDS)
    await control.database.command({"create": COMMANDS, "viewOn": "x", "pipeline": []})
    op = await submitted(OperationLog(control, commands))
    assert op.state is State.REQUESTED
