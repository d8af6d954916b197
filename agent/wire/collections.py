"""The control collections, all in `admin` of the lead replica set."""

from __future__ import annotations

from typing import Final

DATABASE: Final = "admin"
PREFIX: Final = "tidelog"

COMMANDS: Final = "tidelogCommands"
OPERATIONS: Final = "tidelogOperations"
LEASES: Final = "tidelogLeases"
AGENTS: Final = "tidelogAgents"
CONFIG: Final = "tidelogConfig"
BACKUPS: Final = "tidelogBackups"
SLICES: Final = "tidelogSlices"
RESTORES: Final = "tidelogRestores"
EVENTS: Final = "tidelogEvents"

ALL: Final = (COMMANDS, OPERATIONS, LEASES, AGENTS, CONFIG, BACKUPS, SLICES, RESTORES, EVENTS)

CAPPED_BYTES: Final = {COMMANDS: 1 << 20, EVENTS: 64 << 20}
SCHEMA_VERSION: Final = 1
