"""How many collections are created in one call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.operations.restore.creating import AT_ONCE, FIRST_AT_ONCE, LONG_S, next_size
from agent.wire.leases import MARGIN_S, RENEW_EVERY_S, TTL_S


def held_s(cost_s: float, calls: int) -> list[float]:
    """How long each call holds the server's lock, when one creation costs so much."""
    held, at_once = [], FIRST_AT_ONCE
    for _ in range(calls):
        held.append(at_once * cost_s)
        at_once = next_size(at_once, held[-1])
    return held


@given(st.floats(0.0001, 0.9))
def test_no_call_holds_the_server_for_as_long_as_a_renewal_may_take(cost_s: float) -> None:
    spare_s = TTL_S - MARGIN_S - RENEW_EVERY_S
    assert max(held_s(cost_s, 30)) <= max(LONG_S * 2, FIRST_AT_ONCE * cost_s, cost_s) < spare_s


def test_a_quick_server_gets_many_at_once_and_a_slow_one_few() -> None:
    assert round(held_s(0.001, 30)[-1] / 0.001) == AT_ONCE
    assert round(held_s(0.2, 30)[-1] / 0.2) <= 2


def test_a_server_that_becomes_slow_is_noticed() -> None:
    at_once = AT_ONCE
    for _ in range(8):
        at_once = next_size(at_once, at_once * 2.0)
    assert at_once == 1
