"""What the workload does, as plain data: the same seed gives the same list of these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """How the commands of an action are sent."""

    PLAIN = "plain"
    COMMIT = "commit"
    ABORT = "abort"
    PREPARE_COMMIT = "prepare_commit"
    PREPARE_ABORT = "prepare_abort"
    RACE = "race"
    """The first on another connection, and the rest while it is (with luck) still under way."""


@dataclass(frozen=True)
class Action:
    """One step: commands for one database, in order."""

    kind: str
    database: str
    commands: tuple[dict[str, Any], ...]
    mode: Mode = Mode.PLAIN
