"""A wall clock that is wrong for one process, and can be stepped while it runs.

Debian's libfaketime is loaded before the program's own libraries; it reads how far the clock is off
from a file, each time it is asked. Only the time of day is changed, as by whoever sets a clock:
clocks that count go on. Its version of the call behind `time.sleep` refuses them, so the program
starts with another `sleep`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.product import ROOT

LIBRARIES = "/usr/lib"
_PATTERN = "*/faketime/libfaketimeMT.so.1"
_SLEEP = '''"""Sleep by a call that the preloaded library leaves alone."""
import select
import time

time.sleep = lambda seconds: select.select([], [], [], seconds) and None
'''


def library() -> Path:
    """Where the library is. Skips the test where there is none, but never in CI."""
    found = sorted(Path(LIBRARIES).glob(_PATTERN))
    if not found:
        reason = "Debian's libfaketime is not installed: clocks cannot be set"
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(reason)
        pytest.skip(reason)
    return found[0]


class FakeClock:
    """The time of day of whatever is started with its `environment`."""

    def __init__(self, directory: Path, days: float = 0.0) -> None:
        directory.mkdir()
        self._file = directory / "offset"
        self._startup = directory / "startup"
        self._startup.mkdir()
        (self._startup / "sitecustomize.py").write_text(_SLEEP)
        self._library = library()
        self.days = days
        self.steps = 0
        self.step(days)

    def step(self, days: float) -> None:
        """It is off by so many days from now on."""
        self.steps += days != self.days
        self.days = days
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(f"{days:+g}d\n")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """For the process."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": f"{self._startup}:{ROOT}",
        }
