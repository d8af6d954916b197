"""The crash table: which command passes which fault point, and what is done to the agent there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from agent.wire.leases import TTL_S
from tests.support.agents import AgentProcess
from tests.support.eventually import eventually

HIT_WITHIN_S: Final = 90.0


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
    def is_sharded(self) -> bool:
        """It needs shards and config servers."""
        return self in (Driver.SHARDED_BACKUP, Driver.SHARDED_RESTORE)


IN_FULL: Final = pytest.mark.skipif(
    not os.environ.get("TIDELOG_CRASH"), reason="takes minutes: make crash runs it"
)

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
    "restore.before_apply": Driver.RESTORE,
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


ON_SHARD: Final = frozenset({"restore.orphans_removed"})
"""Points of sharded clusters that a shard's agent passes, not the config servers'."""

CASES: Final = tuple(Case(point, action) for point in DRIVEN_BY for action in ACTIONS)

IN_CI: Final = (
    Case("backup.published", "permanent"),
    Case("snapshot.chunk_stored", "kill"),
    Case("oplog.run_recorded", "cancel"),
    Case("restore.created", "stop"),
    Case("restore.checkpoint", "permanent"),
    Case("delete.withdrawn", "permanent"),
    Case("verify.recorded", "transient"),
)
"""Each action, and each kind of durable act: an object, a control document, publishing, the target,
a deletion, a record of what was found. About two minutes."""


def chosen(*, is_sharded: bool) -> tuple[Case, ...]:
    """Rows for one replica set, or for a sharded cluster. The whole table when TIDELOG_CRASH is
    `all`; the rows whose names hold one of its words; without it `IN_CI`."""
    wanted = os.environ.get("TIDELOG_CRASH", "")
    rows = [case for case in CASES if case.driver.is_sharded == is_sharded]
    if not wanted:
        return tuple(case for case in rows if case in IN_CI)
    words = wanted.split(",")
    return tuple(c for c in rows if wanted == "all" or any(word in str(c) for word in words))


def let_it_fail(
    case: Case,
    agent: AgentProcess,
    operation: Callable[[], dict[str, Any]] | None,
    story: Callable[[], str],
) -> None:
    """Wait until the fault has happened, and bring the agent back. `operation` reads the document
    of what the command asked for, if there is one."""
    if case.action in ("kill", "cancel"):
        eventually(lambda: not agent.is_running, HIT_WITHIN_S, describe=story)
        assert agent.reap() == (-9 if case.action == "kill" else 0), agent.log_tail()
        agent.kill()
        agent.start()
        agent.wait_announced()
    elif case.action == "stop":
        eventually(lambda: is_stopped(agent.pid), HIT_WITHIN_S, describe=story)
        time.sleep(TTL_S + 1.0)
        agent.resume()
    else:
        said = f"fault injected at {case.point}"

        def happened() -> bool:
            document = json.dumps(operation(), default=str) if operation is not None else ""
            return said in document or said in agent.log_text()

        eventually(happened, HIT_WITHIN_S, describe=story)


def is_stopped(pid: int) -> bool:
    """Whether the process stands still by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
