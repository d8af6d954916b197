"""A test that hangs says where, and ends."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.support.deadline import STATUS, deadline

STUBBORN = """
import asyncio
from tests.support.deadline import deadline

async def stay():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

with deadline("tests/test_x.py::test_y", 0.3):
    asyncio.run(asyncio.wait_for(stay(), 0.1))
"""


def test_a_process_that_hangs_says_where_and_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == STATUS
    assert "tests/test_x.py::test_y has not ended after 0.3 s" in done.stderr
    assert "(cancelled 1 times)\n  <string>:8 stay\n" in done.stderr
    assert "Thread 0x" in done.stderr


def test_what_ends_in_time_is_left_alone() -> None:
    with deadline("this", 0.05):
        pass
    time.sleep(0.1)
