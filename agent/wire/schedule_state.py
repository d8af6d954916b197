"""What the scheduler remembers between two looks, and across agents: one document."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.record import Record

MANY_ORPHANS = 1000
"""Groups of orphans that are remembered by name; more are met again at the next sweep."""


class TaskState(Record):
    """One schedule."""

    handled: datetime
    """The latest moment that was dealt with; a new schedule begins at the moment it is seen."""
    outcome: str = "begun"
    """`begun`, `submitted`, `caught up`, `skipped` or `missed`: what became of that moment."""
    op_id: str | None = None
    missed: int = 0
    """How many moments passed without a run, ever."""


class Orphans(Record):
    """Objects of one writer that nothing refers to, seen and left alone for the time being."""

    first_seen: datetime
    objects: int = 0
    size_bytes: int = 0


class ScheduleState(Record):
    """All of it. `epoch` is that of the scheduler who wrote it last."""

    schema_version: int = SCHEMA_VERSION
    now: datetime
    """The server's time when it was read."""
    epoch: int = 0
    tasks: dict[str, TaskState] = Field(default_factory=dict)
    cleaned_at: datetime | None = None
    """When the policy asked for a cleanup last."""
    swept_at: datetime | None = None
    """When the last sweep that ended began."""
    orphans: dict[str, Orphans] = Field(default_factory=dict)
    """By the operation that wrote them, or the folder they lie in."""
