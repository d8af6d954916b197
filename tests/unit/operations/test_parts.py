"""The lead's deadlines for its workers: nobody is waited for in vain, who is missing is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.errors import NodeUnavailable
from agent.operations.parts import NOBODY_FIT_S, NOT_TAKEN_S, PartWatch
from agent.wire.leases import Lease
from agent.wire.nodes import NodeStatus, Role
from agent.wire.operations import Kind, Operation, Part, State
from tests.support.manual_clock import ManualClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HELD = {"work/rs0": Lease(id="work/rs0", owner="a", epoch=1, expires_at=NOW)}


def operation(*parts: Part, kind: Kind = Kind.BACKUP) -> Operation:
    return Operation(
        id="1" * 24, kind=kind, name="b", requested_at=NOW, state=State.RUNNING, parts=parts
    )


def node(role: Role = Role.SECONDARY, replset: str = "rs0", **fields: Any) -> NodeStatus:
    return NodeStatus(
        id=f"{replset}/a:1",
        replset=replset,
        host="a:1",
        role=role,
        agent_version="1",
        mongodb_version="6",
        **fields,
    )


def test_a_part_that_somebody_works_on_may_take_its_time() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0", state=State.RUNNING))
    assert not watch.has_waiting(found, HELD)
    for _ in range(100):
        watch.check(found, HELD, [])
        clock.jump(3600)


def test_a_replica_set_without_an_agent_fails_by_name_soon() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0"), Part(replset="rs1"))
    watch.check(found, HELD, [node()])
    clock.jump(NOBODY_FIT_S)
    with pytest.raises(NodeUnavailable, match=r"replica set rs1 .* none is alive"):
        watch.check(found, HELD, [node()])


def test_an_agent_that_is_alive_but_unfit_is_named_with_its_role() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0"))
    watch.check(found, {}, [node(Role.DELAYED)])
    clock.jump(NOBODY_FIT_S)
    with pytest.raises(NodeUnavailable, match=r"alive are a:1 \(delayed\)"):
        watch.check(found, {}, [node(Role.DELAYED)])


def test_a_stale_agent_is_no_agent() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0"))
    watch.check(found, {}, [node(age_s=99)])
    clock.jump(NOBODY_FIT_S)
    with pytest.raises(NodeUnavailable, match="none is alive"):
        watch.check(found, {}, [node(age_s=99)])


def test_an_agent_that_comes_back_in_time_is_waited_for() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0"))
    watch.check(found, {}, [])
    clock.jump(NOBODY_FIT_S - 1)
    watch.check(found, {}, [node()])
    clock.jump(NOBODY_FIT_S - 1)
    watch.check(found, {}, [])


def test_a_part_that_fit_agents_do_not_take_fails_later() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0"))
    watch.check(found, {}, [node()])
    clock.jump(NOT_TAKEN_S - 1)
    watch.check(found, {}, [node()])
    clock.jump(1)
    with pytest.raises(NodeUnavailable, match="no agent of replica set rs0 took its part"):
        watch.check(found, {}, [node()])


def test_a_restore_waits_for_a_primary() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0"), kind=Kind.RESTORE)
    watch.check(found, {}, [node(Role.SECONDARY)])
    clock.jump(NOBODY_FIT_S)
    with pytest.raises(NodeUnavailable, match=r"can do the restore: alive are a:1 \(secondary\)"):
        watch.check(found, {}, [node(Role.SECONDARY)])


def test_a_part_that_is_over_is_nobodys() -> None:
    clock = ManualClock()
    watch, found = PartWatch(clock), operation(Part(replset="rs0", state=State.DONE))
    assert not watch.has_waiting(found, {})
    watch.check(found, {}, [])
    clock.jump(NOT_TAKEN_S)
    watch.check(found, {}, [])
