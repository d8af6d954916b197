"""The crash table: which command passes which fault point, and what is done to the agent there."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Driver(StrEnum):
    """A command, or what else makes an agent pass a fault point."""

    BACKUP = "backup"
    RESTORE = "restore"
    DELETE = "delete-backup"
    SLICING = "slicing"
    VERIFY = "verify"
    RESYNC = "resync"
    ADOPT = "storage adopt"
    ENABLE = "encryption enable"
    ROTATE = "encryption rotate"
    ENCRYPTED_BACKUP = "backup, encrypted"
    SHARDED_BACKUP = "backup, sharded"
    SHARDED_RESTORE = "restore, sharded"
    DELETE_PITR = "delete-pitr"
    CLEANUP = "cleanup"
    HOLD = "hold"
    SCHEDULE = "a schedule's moment"

    @property
    def is_apart(self) -> bool:
        """It needs shards and config servers, or the time of a schedule: not of the suite of one
        node and a command."""
        return self in (Driver.SHARDED_BACKUP, Driver.SHARDED_RESTORE, Driver.SCHEDULE)


ACTIONS: Final = ("transient", "permanent", "cancel", "kill", "stop")

DRIVEN_BY: Final[dict[str, Driver]] = {
    "lease.acquired": Driver.BACKUP,
    "operation.led": Driver.BACKUP,
    "part.taken": Driver.BACKUP,
    "operation.transitioned": Driver.BACKUP,
    "snapshot.catalogued": Driver.BACKUP,
    "snapshot.chunk_read": Driver.BACKUP,
    "snapshot.chunk_stored": Driver.BACKUP,
    "snapshot.journal_written": Driver.BACKUP,
    "snapshot.manifest_written": Driver.BACKUP,
    "backup.before_publish": Driver.BACKUP,
    "backup.published": Driver.BACKUP,
    "oplog.slice_stored": Driver.SLICING,
    "oplog.run_recorded": Driver.SLICING,
    "restore.before_drop": Driver.RESTORE,
    "restore.dropped": Driver.RESTORE,
    "restore.created": Driver.RESTORE,
    "restore.chunk_loaded": Driver.RESTORE,
    "restore.checkpoint": Driver.RESTORE,
    "restore.replayed": Driver.RESTORE,
    "restore.indexes_built": Driver.RESTORE,
    "restore.routing_cleared": Driver.SHARDED_RESTORE,
    "restore.orphans_removed": Driver.SHARDED_RESTORE,
    "delete.withdrawn": Driver.DELETE,
    "delete.object_deleted": Driver.DELETE,
    "delete.planned": Driver.DELETE,
    "delete.slices_trimmed": Driver.DELETE_PITR,
    "hold.written": Driver.HOLD,
    "sweep.found": Driver.CLEANUP,
    "schedule.submitted": Driver.SCHEDULE,
    "schedule.recorded": Driver.SCHEDULE,
    "resync.published": Driver.RESYNC,
    "verify.recorded": Driver.VERIFY,
    "verify.ledger_saved": Driver.VERIFY,
    "adopt.owner_written": Driver.ADOPT,
    "encryption.policy_written": Driver.ENABLE,
    "encryption.key_created": Driver.ENCRYPTED_BACKUP,
    "encryption.key_wrapped": Driver.ROTATE,
    "balancer.paused": Driver.SHARDED_BACKUP,
    "balancer.put_back": Driver.SHARDED_BACKUP,
}


HITS: Final = {"lease.acquired": 2}
"""At which hit, where not the first: the first lease is the node's own, before the agent begins."""


class Case(NamedTuple):
    """One row of the table."""

    point: str
    action: str

    @property
    def driver(self) -> Driver:
        """What makes an agent pass the point."""
        return DRIVEN_BY[self.point]

    @property
    def faults(self) -> str:
        """What TIDELOG_FAULTS says."""
        return f"{self.point}={self.action}@{HITS.get(self.point, 1)}"

    def __str__(self) -> str:
        return f"{self.point}-{self.action}"


CASES: Final = tuple(Case(point, action) for point in DRIVEN_BY for action in ACTIONS)

IN_CI: Final = (
    Case("backup.published", "permanent"),
    Case("verify.recorded", "transient"),
    Case("resync.published", "cancel"),
    Case("delete.withdrawn", "kill"),
    Case("restore.created", "stop"),
)
"""An action each, of different commands: about a minute."""
