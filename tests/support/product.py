"""How the product's programs are started: from the checkout, and with no settings of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SETTINGS = ("TIDELOG_", "PBM_")


def command_of(program: str) -> list[str]:
    """The command line that starts `agent` or `ctl`."""
    return [sys.executable, "-m", program]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without settings of the product, and with `extra`."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS)}
    # The tests' own path, so that the programs start from any directory.
    return {**inherited, "PYTHONPATH": str(ROOT), **(extra or {})}
