"""What the seeded stream of actions promises, without a server."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import bson
import pytest

from tests.support.workload import DEFAULT_WEIGHTS, DML_ONLY, Action, Generator
from tests.support.workload.values import IDENTIFIERS, identifier


def _actions(
    seed: int, weights: dict[str, float] | None = None, number: int = 2_000
) -> list[Action]:
    return list(islice(Generator(seed, ("a", "b"), weights), number))


def test_same_seed_chooses_the_same_actions() -> None:
    # As text: a NaN among the identifiers is not equal to itself.
    assert repr(_actions(1)) == repr(_actions(1))
    assert repr(_actions(1)) != repr(_actions(2))


def test_every_action_comes_in_time_and_is_a_command_bson_can_hold() -> None:
    actions = _actions(1, dict.fromkeys(DEFAULT_WEIGHTS, 1.0))
    kinds = Counter(action.kind for action in actions)
    # A rename crosses databases by chance, and a view is dropped by chance.
    assert set(DEFAULT_WEIGHTS) | {"rename_across", "drop_view"} <= set(kinds)
    for action in actions:
        for command in action.commands:
            bson.encode(command)


def test_weights_choose_what_comes() -> None:
    kinds = {action.kind for action in _actions(3, dict(DML_ONLY), 500)}
    assert kinds == set(DML_ONLY) - {"measure"}  # there is no time series to measure into


def test_unknown_action_is_refused() -> None:
    with pytest.raises(ValueError, match="no_such"):
        Generator(1, ("a",), {"no_such": 1})


def test_identifiers_are_of_every_type_an_id_may_have() -> None:
    types = {bson.encode({"_id": identifier(n)})[4] for n in range(IDENTIFIERS)}
    # Not: undefined 6, array 4, regular expression 11; 12 and 14 only old drivers wrote.
    assert types == {1, 2, 3, 5, 7, 8, 9, 10, 13, 15, 16, 17, 18, 19, 127, 255}
