"""Fault points: the registry and the code name the same ones, and each has a crash case."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from agent.errors import IntegrityError, StorageUnavailable
from agent.faults import FAULT_POINTS, arm, fault_point
from tests.support.crashes import ACTIONS, CASES, DRIVEN_BY, IN_CI

ROOT = Path(__file__).parents[3]


def passed_in_the_code() -> list[str]:
    """The names that the product's `fault_point(…)` calls have, all literal."""
    found = []
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "fault_point":
                (name,) = call.args
                assert isinstance(name, ast.Constant), f"{path}: not a literal name"
                found.append(str(name.value))
    return found


def test_registry_has_exactly_the_points_that_the_code_passes() -> None:
    """An unknown one would make every armed run fail there; an unused one would never be hit."""
    assert set(passed_in_the_code()) == FAULT_POINTS


def test_every_fault_point_has_a_command_that_drives_it() -> None:
    assert set(DRIVEN_BY) == FAULT_POINTS


def test_the_crash_table_is_every_point_with_every_action() -> None:
    assert {(case.point, case.action) for case in CASES} == {
        (point, action) for point in FAULT_POINTS for action in ACTIONS
    }
    assert set(CASES) >= set(IN_CI)
    assert {case.action for case in IN_CI} == set(ACTIONS)


@pytest.mark.parametrize(
    ("action", "error"), [("transient", StorageUnavailable), ("permanent", IntegrityError)]
)
async def test_armed_point_acts_at_its_hit_and_only_then(
    action: str, error: type[Exception]
) -> None:
    arm(f"lease.acquired={action}@2")
    try:
        await fault_point("lease.acquired")
        await fault_point("backup.published")
        with pytest.raises(error):
            await fault_point("lease.acquired")
        await fault_point("lease.acquired")
    finally:
        arm("")


def test_unknown_points_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown fault point"):
        arm("nowhere=kill")
