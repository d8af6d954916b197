"""What an agent says of its node with each heartbeat."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.record import Record
from agent.wire.storage_reports import StorageReport

HEARTBEAT_EVERY_S: Final = 4.0
STALE_AFTER_S: Final = 15.0
MAX_LAG_S: Final = 60.0
"""A secondary further behind is not chosen while another can be."""


class Role(StrEnum):
    """What the node is in its replica set now."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    HIDDEN = "hidden"
    DELAYED = "delayed"
    STARTUP = "startup"
    DOWN = "down"


class NodeStatus(Record):
    """One agent and its node. `heartbeat_at` and `age_s` are in server time."""

    id: str = Field(alias="_id")
    schema_version: int = SCHEMA_VERSION
    replset: str
    host: str
    role: Role
    lag_s: float = 0.0
    copied_by: int = 0
    """How many members copy the oplog from it, as far as it may know."""
    priority: float | None = None
    """Set by `backup.priority`; without it hidden 2, secondary 1, primary 0.5."""
    agent_version: str
    mongodb_version: str
    features: tuple[str, ...] = ()
    pid: int = 0
    storage_error: str | None = None
    profile_errors: dict[str, str] = Field(default_factory=dict)
    storage_warnings: dict[str, str] = Field(default_factory=dict)
    """By profile: what will soon be a fault, such as credentials that end."""
    """What is wrong with the storages of the other profiles, as this agent finds them."""
    storage_settings_version: int | None = None
    """The version of the settings that the storage check was made with."""
    key_policies: tuple[str, ...] = ()
    """Digests of the encryption policies whose keys were checked."""
    key_fingerprint: str | None = None
    """Of the keys as this agent has them: the same on all agents, or something is wrong."""
    key_error: str | None = None
    """Why they cannot be used here."""
    reports: tuple[StorageReport, ...] = ()
    """Answers to the last storage checks."""
    errors: tuple[str, ...] = ()
    rss_bytes: int = 0
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    age_s: float = 0.0
    """Seconds since the last heartbeat, computed by the server when read."""

    @property
    def is_live(self) -> bool:
        """Whether the last heartbeat is recent enough."""
        return self.age_s < STALE_AFTER_S
