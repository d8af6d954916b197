"""A test that hangs says where, and ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.support.deadline import STATUS, deadline

STUBBORN = """
import asyncio
import pytest
import tests.conftest

tests.conftest.GRACE_S = 0.3

async def stay():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

@pytest.mark.timeout(0.2)
async def test_y():
    await stay()
"""


def test_a_process_that_hangs_says_where_and_ends(tmp_path: Path) -> None:
    """pytest-timeout breaks the test off, and its task goes on."""
    test = tmp_path / "test_x.py"
    test.write_text(STUBBORN)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "pyproject.toml"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", str(test)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == STATUS, done.stdout
    assert "::test_y has not ended after 0.5 s" in done.stderr
    assert "test_x.py:11 stay\n" in done.stderr
    assert "Thread 0x" in done.stderr


def test_what_ends_in_time_is_left_alone() -> None:
    with deadline("this", 0.05):
        pass
    time.sleep(0.1)
