"""The roles of the agents' user: what `agent.wire.privileges` lists, as `createRole` commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.wire.privileges import (
    BACKUP,
    BACKUP_ROLE,
    BACKUP_SHARDED,
    CHOICE,
    RESTORE,
    RESTORE_ROLE,
    RESTORE_SHARDED,
    Privilege,
)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Role:
    """One role."""

    name: str
    privileges: Sequence[Privilege]

    def command(self) -> Document:
        """The `createRole` command."""
        return {
            "createRole": self.name,
            "roles": [],
            "privileges": [privilege.document() for privilege in self.privileges],
        }


FOR_BACKUP: Final = Role(BACKUP_ROLE, (*BACKUP, *CHOICE, *BACKUP_SHARDED))
"""Enough for backups and for point-in-time archiving."""
FOR_RESTORE: Final = Role(RESTORE_ROLE, (*RESTORE, *RESTORE_SHARDED))
"""What restores need beside it."""
