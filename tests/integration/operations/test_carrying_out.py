"""Operations carried out by several agents on a real control database, whoever dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent.errors import (
    IntegrityError,
    NodeUnavailable,
    Refused,
    StorageFull,
    StorageUnavailable,
)
from agent.operations.context import LeadContext, PartContext
from agent.operations.runner import BYSTANDER_LOOKS_EVERY_S
from agent.store.settings_store import SettingsStore
from agent.wire.collections import OPERATIONS
from agent.wire.nodes import Role
from agent.wire.operations import Kind, Operation, Progress, State
from agent.wire.settings import Settings, load_yaml
from tests.integration.operations.fleet import FakeNode, Fleet, FleetAgent
from tests.support.eventually import eventually_async
from tests.support.mongod import ReplicaSet

A, B, P = "a:1", "b:1", "p:1"


@pytest.fixture
async def fleet(one_node: ReplicaSet) -> AsyncIterator[Fleet]:
    async with Fleet(one_node) as made:
        yield made


async def trio(fleet: Fleet) -> None:
    """Two secondaries and a primary: `a` is the best, `b` the next."""
    await fleet.start(FakeNode(A), FakeNode(B), FakeNode(P, role=Role.PRIMARY))


def part_of(op: Operation, replset: str = "one") -> str:
    part = op.part(replset)
    assert part is not None
    return f"{part.state} {part.node} {part.attempts}"


async def test_the_best_node_leads_and_works(fleet: Fleet) -> None:
    await trio(fleet)
    done = await fleet.over(await fleet.submit())
    assert done.state is State.DONE
    assert done.result == {"finished": A}
    assert part_of(done) == f"done one/{A} 1"
    assert [call[0] for call in fleet.script.calls if call[0] != "advance"] == [
        *("choose", "work", "finish")
    ]


async def test_work_that_takes_no_time_is_done_at_once(fleet: Fleet) -> None:
    await trio(fleet)
    taken = []
    for _ in range(5):
        done = await fleet.over(await fleet.submit())
        assert done.finished_at is not None
        taken.append((done.finished_at - done.requested_at).total_seconds())
    assert min(taken) <= 0.4, taken


async def test_a_kind_without_parts_is_all_the_leads(fleet: Fleet) -> None:
    fleet.script.replsets = []
    await trio(fleet)
    done = await fleet.over(await fleet.submit())
    assert (done.state, done.parts) == (State.DONE, ())
    assert fleet.script.moments("work") == []


async def test_a_command_written_while_no_agent_runs_is_carried_out_later(fleet: Fleet) -> None:
    op = await fleet.submit()
    await trio(fleet)
    assert (await fleet.over(op)).state is State.DONE


async def test_a_lead_goes_on_though_the_times_of_writes_go_back(fleet: Fleet) -> None:
    """As those of two workers who write at once may, and of a new primary with a slower clock."""
    gate = fleet.script.gate("work")
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach("work")
    await asyncio.sleep(0.5)
    seen = len(fleet.script.moments("advance"))
    later = {"updated_at": {"$dateAdd": {"startDate": "$$NOW", "unit": "day", "amount": 1}}}
    fleet.replset.client().admin[OPERATIONS].update_one(
        {"_id": op.id}, [{"$set": {**later, "parts.result": {"begun": True}}}]
    )
    fleet.agent(A).wakeup.wake()
    await fleet.script.reach("advance", seen + 1)
    gate.set()
    assert (await fleet.over(op, within_s=10.0)).state is State.DONE


async def test_agents_without_a_share_of_the_work_look_seldom(fleet: Fleet) -> None:
    """However often the one that works wakes them: all of them read from one primary."""
    spent_s: list[float] = []

    async def record_often(part: PartContext) -> None:
        clock = part.services.clock
        begun_at = clock.monotonic()
        for number in range(40):
            await part.record({"number": number})
        spent_s.append(clock.monotonic() - begun_at)

    fleet.script.on["work"] = record_often
    await trio(fleet)
    looks = {host: fleet.agent(host).runner.board.look for host in (A, P)}
    assert (await fleet.over(await fleet.submit())).state is State.DONE
    took = {host: fleet.agent(host).runner.board.look - looks[host] for host in (A, P)}
    # Until somebody works, and when all is over, everybody looks at each wake-up.
    assert took[P] <= spent_s[0] / BYSTANDER_LOOKS_EVERY_S + 8, (took, spent_s)
    assert took[A] > took[P], (took, spent_s)


async def test_queued_operations_run_one_after_the_other(fleet: Fleet) -> None:
    gate = fleet.script.gate("work")
    await trio(fleet)
    first = await fleet.submit(queue=True)
    await fleet.script.reach("work")
    second, third = await fleet.submit(queue=True), await fleet.submit(queue=True)
    await asyncio.sleep(0.5)
    assert (await fleet.operations.get(second.id)).state is State.REQUESTED
    gate.set()
    ended = [await fleet.over(op) for op in (first, second, third)]
    assert [op.state for op in ended] == [State.DONE] * 3
    finished = [op.finished_at for op in ended]
    assert finished == sorted(finished, key=str)


async def test_an_operation_of_two_replica_sets_waits_for_both(fleet: Fleet) -> None:
    fleet.script.replsets = ["one", "two"]
    await trio(fleet)
    op = await fleet.submit()
    await fleet.state(op, State.ELECTING)
    await asyncio.sleep(0.5)
    assert fleet.script.moments("work") == [], "nobody begins before all can"
    await fleet.start(FakeNode("t:1", replset="two"))
    done = await fleet.over(op)
    assert done.state is State.DONE
    assert (part_of(done, "one"), part_of(done, "two")) == (
        f"done one/{A} 1",
        "done two/t:1 1",
    )


async def test_the_lead_reacts_to_what_workers_record(fleet: Fleet) -> None:
    async def record_and_wait(part: PartContext) -> None:
        await part.record({"read_end": 5})
        async with asyncio.timeout(10):
            while "last_write" not in (await part.refresh()).result:
                await asyncio.sleep(0.02)

    async def choose_last_write(lead: LeadContext) -> None:
        for op in await lead.services.operations.active():
            if all("read_end" in part.result for part in op.parts) and not op.result:
                await lead.services.operations.merge_result(
                    op.id, lead.lease.epoch, {"last_write": 7}
                )

    fleet.script.on = {"work": record_and_wait, "advance": choose_last_write}
    await trio(fleet)
    done = await fleet.over(await fleet.submit())
    assert done.result == {"last_write": 7, "finished": A}


@pytest.mark.parametrize("moment", ["choose", "work", "finish"])
async def test_a_lead_that_dies_is_followed_by_another(fleet: Fleet, moment: str) -> None:
    fleet.script.gate(moment)
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach(moment)
    await fleet.agent(A).kill(fleet.replset)
    fleet.script.gates.clear()
    done = await fleet.over(op)
    assert done.state is State.DONE
    # Which of the others bids first is a matter of a moment on a busy machine.
    assert done.result["finished"] in (B, P)
    assert done.lead_epoch >= 2


@pytest.mark.parametrize(
    "state", [State.ELECTING, State.PREPARING, State.RUNNING, State.PUBLISHING, State.DONE]
)
async def test_a_lead_that_dies_right_after_a_change_is_followed_by_another(
    fleet: Fleet, state: State
) -> None:
    await fleet.start(FakeNode(A))
    (first,) = fleet.agents
    real = first.services.operations.transition

    async def die_after(op_id: str, before: State, after: State, **given: object) -> Operation:
        changed = await real(op_id, before, after, **given)  # type: ignore[arg-type]  # passed on
        if after is state:
            first.line.is_cut = True
        return changed

    object.__setattr__(first.services.operations, "transition", die_after)
    op = await fleet.submit()

    async def is_cut() -> bool:
        return first.line.is_cut

    await eventually_async(is_cut)
    await first.kill(fleet.replset)
    await fleet.start(FakeNode(B))
    done = await fleet.over(op)
    assert done.state is State.DONE
    assert fleet.script.moments("finish")
    assert await fleet.operations.active() == []
    assert (await fleet.over(await fleet.submit())).state is State.DONE, "nothing is left locked"


async def test_a_worker_that_dies_is_followed_by_another_with_a_higher_epoch(
    fleet: Fleet,
) -> None:
    fleet.script.gate("work")
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach("work")
    await fleet.agent(A).kill(fleet.replset)
    fleet.script.gates.clear()
    done = await fleet.over(op)
    assert part_of(done) == f"done one/{B} 2"
    assert fleet.script.moments("work") == [(A, 1), (B, 2)]


async def test_a_frozen_agent_that_wakes_up_changes_nothing(fleet: Fleet) -> None:
    late: list[BaseException] = []
    first: list[str] = []

    async def work(part: PartContext) -> None:
        host = part.services.node.host
        if first and host != first[0]:
            return
        first.append(host)
        while fleet.agent(host).line.is_cut is False:
            await asyncio.sleep(0.01)
        try:
            while fleet.agent(host).line.is_cut:
                await asyncio.sleep(0.01)
            await part.record({"zombie": True})
        except BaseException as error:  # also that it was stopped when its lease could lapse
            late.append(error)
            raise

    fleet.script.on = {"work": work}
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach("work")
    frozen = first[0]
    await fleet.agent(frozen).freeze(fleet.replset)
    done = await fleet.over(op)
    fleet.agent(frozen).thaw()

    async def has_tried() -> bool:
        return bool(late)

    await eventually_async(has_tried)
    assert await fleet.operations.get(op.id) == done
    assert done.result["finished"] in {A, B, P} - {frozen}
    assert "zombie" not in str(done)


async def test_an_agent_that_stops_hands_its_work_over(fleet: Fleet) -> None:
    fleet.script.gate("work")
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach("work")
    fleet.script.gates["work"] = asyncio.Event()
    stopped_at = asyncio.get_running_loop().time()
    await fleet.agent(A).stop()
    await fleet.script.reach("work", 2)
    assert asyncio.get_running_loop().time() - stopped_at < 3, "nobody had to wait for a lease"
    fleet.script.gates["work"].set()
    done = await fleet.over(op)
    assert part_of(done) == f"done one/{B} 1", "a stop is no failed attempt"
    assert (done.result, done.attempts) == ({"finished": B}, 1)


@pytest.mark.parametrize("moment", ["choose", "advance", "work"])
async def test_a_cancelled_operation_ends_soon_and_frees_the_way(fleet: Fleet, moment: str) -> None:
    fleet.script.gate(moment)
    if moment == "advance":
        fleet.script.gate("work")
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach(moment)
    await fleet.operations.request_cancel(op.id)
    over = await fleet.over(op, within_s=8)
    assert over.state is State.CANCELLED
    assert all(part.state is State.CANCELLED for part in over.parts)
    fleet.script.gates.clear()
    assert (await fleet.over(await fleet.submit())).state is State.DONE


async def test_what_is_cancelled_while_no_agent_runs_is_never_begun(fleet: Fleet) -> None:
    op = await fleet.submit()
    await fleet.operations.request_cancel(op.id)
    await trio(fleet)
    assert (await fleet.over(op)).state is State.CANCELLED
    assert fleet.script.calls == []


async def test_a_refusal_of_the_kind_fails_the_operation_with_its_hint(fleet: Fleet) -> None:
    fleet.script.errors["choose"] = [Refused("backup x is on hold", hint="release it")]
    await trio(fleet)
    failed = await fleet.over(await fleet.submit())
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert (failed.error.type, failed.error.message, failed.error.hint) == (
        *("Refused", "backup x is on hold", "release it"),
    )
    assert failed.error.node in {f"one/{host}" for host in (A, B, P)}


async def test_a_permanent_error_of_a_worker_fails_all(fleet: Fleet) -> None:
    fleet.script.errors["work"] = [StorageFull("no space left on /backups")]
    await trio(fleet)
    failed = await fleet.over(await fleet.submit())
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error.message == "no space left on /backups"
    assert len(fleet.script.moments("work")) == 1, "permanent errors are not tried again"
    assert (await fleet.over(await fleet.submit())).state is State.DONE


async def test_when_one_part_fails_the_other_stops(fleet: Fleet) -> None:
    stopped = asyncio.Event()

    async def work(part: PartContext) -> None:
        if part.replset == "two":
            raise IntegrityError("flipped")
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    fleet.script.replsets = ["one", "two"]
    fleet.script.on = {"work": work}
    await fleet.start(FakeNode(A), FakeNode("t:1", replset="two"))
    failed = await fleet.over(await fleet.submit())
    assert failed.error is not None
    assert (failed.error.message, failed.error.node) == ("flipped", "two/t:1")
    assert {part.state for part in failed.parts} == {State.FAILED}
    async with asyncio.timeout(5):
        await stopped.wait()


@pytest.mark.parametrize("moment", ["choose", "work", "finish"])
@pytest.mark.parametrize("error", [StorageUnavailable("away"), KeyError("a bug")], ids=repr)
async def test_what_may_pass_is_tried_again_and_elsewhere(
    fleet: Fleet, moment: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.operations.runner.retry_delay_s", lambda attempts: 0.0)
    fleet.script.errors[moment] = [error, NodeUnavailable("away again")]
    await trio(fleet)
    done = await fleet.over(await fleet.submit())
    assert done.state is State.DONE
    hosts = [host for host, _ in fleet.script.moments(moment)]
    assert len(hosts) == 3
    assert hosts[1] != hosts[0], "another node is tried before the same one again"
    assert any("attempt 1 failed" in (entry.note or "") for entry in done.history)


@pytest.mark.parametrize("moment", ["choose", "work"])
async def test_after_five_attempts_it_has_failed(
    fleet: Fleet, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.operations.runner.retry_delay_s", lambda attempts: 0.0)
    fleet.script.errors[moment] = [StorageUnavailable(f"away {n}") for n in range(9)]
    await trio(fleet)
    failed = await fleet.over(await fleet.submit())
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error.message == "away 4"
    assert len(fleet.script.moments(moment)) == 5


async def test_a_replica_set_without_an_agent_fails_by_name(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.operations.parts.NOBODY_FIT_S", 0.5)
    fleet.script.replsets = ["one", "lonely"]
    await trio(fleet)
    failed = await fleet.over(await fleet.submit())
    assert failed.error is not None
    assert "replica set lonely has no agent" in failed.error.message


@pytest.mark.story("F30", "PBM-1639", "PBM-1721")
async def test_progress_is_written_and_a_hang_is_ended(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.operations.worker.STALLED_AFTER_S", 0.5)
    monkeypatch.setattr("agent.operations.worker.ROLE_EVERY_S", 0.1)
    monkeypatch.setattr("agent.operations.runner.retry_delay_s", lambda attempts: 0.0)

    async def work(part: PartContext) -> None:
        await part.report(Progress(stage="reading", bytes_done=3, bytes_total=9))
        if len(fleet.script.moments("work")) < 3:
            await asyncio.Event().wait()

    fleet.script.on = {"work": work}
    await trio(fleet)
    done = await fleet.over(await fleet.submit())
    part = done.part("one")
    assert part is not None
    assert (part.progress.bytes_done, part.attempts) == (3, 3)
    assert any("nothing moved" in (entry.note or "") for entry in done.history)


async def test_settings_are_those_it_began_with(fleet: Fleet) -> None:
    seen: list[Settings] = []

    async def look(context: LeadContext | PartContext) -> None:
        seen.append(context.settings)

    fleet.script.on = dict.fromkeys(("choose", "work", "finish"), look)
    gate = fleet.script.gate("work")
    store = SettingsStore(fleet.control)
    before = load_yaml("backup: {compression: none, priority: {x.y:1: 2}}")
    await store.replace(before, 0)
    await trio(fleet)
    op = await fleet.submit()
    await fleet.script.reach("work")
    await store.replace(Settings(), 1)
    gate.set()
    done = await fleet.over(op)
    assert seen == [before] * 3
    assert done.settings_version == 1


async def test_a_request_nobody_understands_is_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.operations.runner.UNKNOWN_FOR_S", 0.5)
    await trio(fleet)
    op = await fleet.submit(Kind.RESYNC)
    failed = await fleet.over(op)
    assert failed.error is not None
    assert failed.error.type == "UnsupportedVersion"


async def test_a_restore_is_the_primarys_and_goes_with_it(one_node: ReplicaSet) -> None:
    async with Fleet(one_node, kind=Kind.RESTORE) as fleet:
        fleet.script.gate("work")
        await trio(fleet)
        op = await fleet.submit(Kind.RESTORE)
        await fleet.script.reach("work")
        assert fleet.script.moments("work") == [(P, 1)]
        fleet.agent(P).node.role, fleet.agent(B).node.role = Role.SECONDARY, Role.PRIMARY
        await fleet.agent(P).beat()
        await fleet.agent(B).beat()
        await fleet.script.reach("work", 2)
        fleet.script.gates["work"].set()
        done = await fleet.over(op)
        assert part_of(done) == f"done one/{B} 1", "a step-down is no failed attempt"


async def test_an_agent_that_drains_begins_nothing_new(fleet: Fleet) -> None:
    await fleet.start(FakeNode(A))
    fleet.agents[0].runner.drain()
    op = await fleet.submit()
    await asyncio.sleep(0.5)
    assert (await fleet.operations.get(op.id)).state is State.REQUESTED
    await fleet.start(FakeNode(B))
    assert (await fleet.over(op)).result == {"finished": B}


async def test_an_agent_that_drains_does_not_wait_for_its_next_attempt(fleet: Fleet) -> None:
    """After the third it would be four seconds, after the fifth sixteen."""
    (agent,) = await fleet.start(FakeNode(A))
    fleet.script.errors["work"] = [StorageUnavailable(f"away {n}") for n in range(3)]
    await fleet.submit()
    await fleet.script.reach("work", 3)
    agent.runner.drain()
    await eventually_async(_idle(agent), within_s=1.0)


async def test_an_agent_that_drains_ends_its_work_and_leaves_leading_to_others(
    fleet: Fleet,
) -> None:
    fleet.script.replsets = ["two"]
    fleet.script.gate("work")
    lead, worker = await fleet.start(FakeNode(A), FakeNode(B, "two"))
    op = await fleet.submit()
    await fleet.script.reach("work")
    for agent in (lead, worker):
        agent.runner.drain()
    await eventually_async(_idle(lead), within_s=1.0)
    assert not worker.runner.is_idle
    await lead.stop()
    await fleet.start(FakeNode(P))
    fleet.script.gates["work"].set()
    assert (await fleet.over(op)).result == {"finished": P}
    assert fleet.script.moments("work") == [(B, 1)]


def _idle(agent: FleetAgent) -> Callable[[], Awaitable[bool]]:
    async def is_idle() -> bool:
        return agent.runner.is_idle

    return is_idle


async def test_what_runs_beside_does_not_wait(one_node: ReplicaSet) -> None:
    async with Fleet(one_node) as fleet:
        fleet.kinds[Kind.DELETE_BACKUP] = fleet.kinds[Kind.BACKUP]
        fleet.script.gate("work")
        await trio(fleet)
        backup = await fleet.submit()
        await fleet.script.reach("work")
        fleet.script.replsets = []
        deleted = await fleet.over(await fleet.submit(Kind.DELETE_BACKUP))
        assert deleted.state is State.DONE
        assert (await fleet.operations.get(backup.id)).state is State.RUNNING
        fleet.script.gates["work"].set()
        assert (await fleet.over(backup)).state is State.DONE
