"""Slicing moves to a better node, but not to and fro."""

from __future__ import annotations

from typing import Any

import pytest

from agent.operations.succession import MOST_S, SOON_S, STEADY_LAG_S, STEADY_S, Succession
from agent.wire.nodes import STALE_AFTER_S, NodeStatus, Role
from tests.support.manual_clock import ManualClock

LOOK_EVERY_S = 5.0


def status(name: str, role: Role = Role.SECONDARY, **fields: Any) -> NodeStatus:
    return NodeStatus(
        id=name,
        replset="rs0",
        host=f"{name}:27017",
        role=role,
        agent_version="1",
        mongodb_version="6.0.5",
        **fields,
    )


OWN = status("own", Role.PRIMARY)


class Watch:
    """The one that slices, on the primary, looking every five seconds."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.succession = Succession(OWN.id, self.clock)
        self.succession.begin()

    def after(self, seconds: float, *others: NodeStatus) -> str | None:
        """Who should go on, after so long with these."""
        found = self.succession.successor([OWN, *others])
        for _ in range(int(seconds / LOOK_EVERY_S)):
            assert found is None
            self.clock.jump(LOOK_EVERY_S)
            found = self.succession.successor([OWN, *others])
        return found

    def patience_s(self) -> float:
        """How long a better one has to wait now; makes way for it then."""
        waited = 0.0
        while self.after(0, status("s")) is None:
            self.clock.jump(LOOK_EVERY_S)
            waited += LOOK_EVERY_S
        self.succession.leave()
        return waited


def test_a_better_node_gets_its_turn_when_it_was_well_for_a_while() -> None:
    watch = Watch()
    assert watch.after(STEADY_S - LOOK_EVERY_S, status("s")) is None
    assert watch.after(LOOK_EVERY_S, status("s")) == "s"


def test_the_best_of_those_that_were_well_is_next() -> None:
    watch = Watch()
    others = [status("s"), status("h", Role.HIDDEN)]
    assert watch.after(STEADY_S, *others) == "h"


@pytest.mark.parametrize(
    "trouble",
    [
        {"age_s": STALE_AFTER_S},
        {"lag_s": STEADY_LAG_S},
        {"storage_error": "permission denied"},
        {"key_error": "no key"},
        {"errors": ("no answer",)},
        {"role": Role.STARTUP},
        {"priority": 0.5},
    ],
)
def test_whoever_is_not_well_or_not_better_has_to_wait_from_the_beginning(
    trouble: dict[str, Any],
) -> None:
    watch = Watch()
    assert watch.after(STEADY_S - LOOK_EVERY_S, status("s")) is None
    assert watch.after(LOOK_EVERY_S, status("s", **trouble)) is None
    assert watch.after(STEADY_S - LOOK_EVERY_S, status("s")) is None
    assert watch.after(LOOK_EVERY_S, status("s")) == "s"


def test_slicing_that_comes_back_soon_waits_longer_each_time_within_bounds() -> None:
    watch = Watch()
    waited = []
    for _ in range(12):
        waited.append(watch.patience_s())
        watch.clock.jump(30.0)
        watch.succession.begin()
    assert waited[:3] == [STEADY_S, 2 * STEADY_S, 4 * STEADY_S]
    assert waited == sorted(waited)
    assert waited[-1] == MOST_S
    watch.patience_s()
    watch.clock.jump(SOON_S + 1)
    watch.succession.begin()
    assert watch.patience_s() == STEADY_S


def test_a_turn_that_ended_for_another_reason_counts_for_nothing() -> None:
    watch = Watch()
    watch.succession.begin()
    watch.succession.begin()
    assert watch.patience_s() == STEADY_S
