"""Leases: the time-bound right to act, and its fencing number."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import Field

from agent.wire.operations import Kind
from agent.wire.record import Record

TTL_S: Final = 10.0
"""How long a lease lasts without renewal."""
RENEW_EVERY_S: Final = 3.0
MARGIN_S: Final = 3.0
"""The holder stops itself this long before the lease can lapse."""


class Lease(Record):
    """`epoch` rises by one with each owner and never falls."""

    id: str = Field(alias="_id")
    owner: str | None = None
    epoch: int = 0
    expires_at: datetime
    remaining_s: float = 0.0
    """Until it lapses, computed by the server when read; negative when it has."""
    asked_at: float | None = Field(default=None, exclude=True)
    """When this process asked for it, by its own clock; never leaves the process."""


def node_scope(node: str) -> str:
    """At most one agent serves a node."""
    return f"node/{node}"


def lead_scope(kind: Kind) -> str:
    """Leading cluster-wide steps of an operation: of the exclusive one, of one that changes what is
    stored, or of one that only reads it. The three do not wait for each other."""
    if kind.only_reads:
        return "lead/reading"
    return "lead/exclusive" if kind.is_exclusive else "lead/maintenance"


def work_scope(replset: str, kind: Kind) -> str:
    """Working on one replica set's part of an operation."""
    return f"work/{replset}/reading" if kind.only_reads else f"work/{replset}"


KEY_PROBE_SCOPE: Final = "key-probe"
"""Unwrapping the keys of all that is kept, once a day."""

SCHEDULER: Final = "scheduler"
"""Looking after schedules and retention."""


def slicer_scope(replset: str) -> str:
    """Slicing the oplog of one replica set."""
    return f"slicer/{replset}"


def notify_scope() -> str:
    """Sending notices to webhooks."""
    return "notify/webhooks"
