"""What agents log, as `ctl logs` shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from pydantic import Field

from agent.wire.record import Record

SEVERITIES: Final = "DIWEF"
"""Debug, info, warning, error, fatal: from the least to the gravest."""


class Event(Record):
    """One line. `at` is the server's time; `age_s` is how long ago it happened when it is written,
    so that no agent's clock takes part."""

    at: datetime | None = None
    age_s: float = 0.0
    severity: str = "I"
    node: str = ""
    replset: str = ""
    event: str = ""
    op_id: str | None = None
    kind: str | None = None
    name: str | None = None
    """Of the operation."""
    fields: dict[str, Any] = Field(default_factory=dict)


class EventFilter(Record):
    """Which events a person wants; what is `None` does not narrow."""

    severity: str = "I"
    """This one and graver ones."""
    replset: str | None = None
    node: str | None = None
    kind: str | None = None
    name: str | None = None
    op_id: str | None = None
    event: str | None = None

    def to_query(self) -> dict[str, Any]:
        """As a query of the control database."""
        graver = list(SEVERITIES[max(0, SEVERITIES.find(self.severity)) :])
        chosen = self.model_dump(exclude_none=True, exclude={"severity"})
        return {"severity": {"$in": graver}, **chosen}
