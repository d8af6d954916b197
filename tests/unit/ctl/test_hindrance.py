"""What stands in the way of an operation, told from the registry and the leases."""

from __future__ import annotations

from datetime import UTC, datetime

from agent.wire.operations import HistoryEntry, Kind, State
from ctl.hindrance import find_hindrance
from tests.unit.ctl.world import node, operation, part

HELD = frozenset({"lead/exclusive"})


def test_nothing_when_somebody_leads() -> None:
    running = operation(state=State.RUNNING, parts=(part(),))
    assert find_hindrance(running, (node(),), HELD) is None


def test_no_agent_at_all() -> None:
    found = find_hindrance(operation(), (), HELD)
    assert found is not None
    assert found.is_fatal
    assert found.sentence == "no agent is running"


def test_the_youngest_of_the_dead_is_named() -> None:
    nodes = (node("h1:27017", age_s=90), node("h2:27017", age_s=30))
    found = find_hindrance(operation(), nodes, HELD)
    assert found is not None
    assert found.is_fatal
    assert "rs0/h2:27017, answered 30 s ago" in found.sentence


def test_a_dead_lead_is_told_at_once_and_for_how_long() -> None:
    nodes = (node("h1:27017", age_s=47), node("h2:27017"))
    running = operation(state=State.RUNNING, lead_node="rs0/h1:27017", parts=(part(),))
    found = find_hindrance(running, nodes, frozenset())
    assert found is not None
    assert not found.is_fatal
    assert found.grace_s == 0
    assert "the lead rs0/h1:27017 is dead, it answered 47 s ago" in found.sentence


def test_a_lost_lease_of_a_live_lead_has_a_grace() -> None:
    running = operation(state=State.RUNNING, lead_node="rs0/h1:27017")
    found = find_hindrance(running, (node(),), frozenset())
    assert found is not None
    assert found.grace_s > 0
    assert "has lost its lease" in found.sentence


def test_an_attempt_that_failed_says_why() -> None:
    note = "attempt 2 failed: the storage directory /mnt/new does not exist"
    history = (HistoryEntry(at=datetime(2026, 3, 1, tzinfo=UTC), state="publishing", note=note),)
    running = operation(state=State.PUBLISHING, lead_node="rs0/h1:27017", history=history)
    found = find_hindrance(running, (node(),), frozenset())
    assert found is not None
    assert found.sentence == f"{note}; it is tried again"


def test_a_new_command_has_no_lead_yet() -> None:
    found = find_hindrance(operation(), (node(),), frozenset())
    assert found is not None
    assert found.grace_s >= 5


def test_deletes_are_led_under_their_own_lease() -> None:
    deletion = operation(Kind.DELETE_BACKUP)
    assert find_hindrance(deletion, (node(),), HELD) is not None
    assert find_hindrance(deletion, (node(),), frozenset({"lead/maintenance"})) is None


def test_a_queued_operation_waits_for_good_reason() -> None:
    assert find_hindrance(operation(queued=True), (node(),), frozenset()) is None


def test_a_dead_worker_is_named_while_its_part_is_not_over() -> None:
    nodes = (node("h1:27017", age_s=20), node("h2:27017"))
    running = operation(state=State.RUNNING, parts=(part(),))
    found = find_hindrance(running, nodes, HELD)
    assert found is not None
    assert "another agent of rs0 has to go on" in found.sentence
    over = operation(state=State.PUBLISHING, parts=(part(state=State.DONE),))
    assert find_hindrance(over, nodes, HELD) is None
