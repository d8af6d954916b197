"""Named places where tests make the agent fail: no-ops in production.

Each durable act passes `await fault_point("name")`. `TIDELOG_FAULTS` (read once, at import) is a
comma-separated list of `name=action[@hit]`: the action happens at the n-th hit (default the first),
with `@*` at each.

    transient   raise StorageUnavailable        permanent   raise IntegrityError
    kill        SIGKILL this process            stop        SIGSTOP this process
    cancel      SIGTERM this process, and wait  sleep:S     wait S seconds
                here for the cancellation

The registry `FAULT_POINTS` is what the crash suite is parametrised over; a name that is not in it
is a programming error.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import Final

from agent.errors import IntegrityError, StorageUnavailable

FAULT_POINTS: Final = frozenset(
    {
        "lease.acquired",
        "operation.led",
        "part.taken",
        "operation.transitioned",
        "snapshot.catalogued",
        "snapshot.chunk_read",
        "snapshot.chunk_stored",
        "snapshot.journal_written",
        "snapshot.manifest_written",
        "oplog.slice_stored",
        "oplog.run_recorded",
        "backup.before_publish",
        "backup.published",
        "restore.before_drop",
        "restore.dropped",
        "restore.created",
        "restore.before_apply",
        "restore.chunk_loaded",
        "restore.checkpoint",
        "restore.replayed",
        "restore.indexes_built",
        "restore.routing_cleared",
        "restore.orphans_removed",
        "delete.withdrawn",
        "delete.planned",
        "delete.slices_trimmed",
        "delete.object_deleted",
        "resync.published",
        "verify.recorded",
        "verify.ledger_saved",
        "adopt.owner_written",
        "encryption.policy_written",
        "encryption.key_created",
        "encryption.key_wrapped",
        "balancer.paused",
        "balancer.put_back",
        "hold.written",
        "sweep.found",
        "schedule.submitted",
        "schedule.recorded",
    }
)


EVERY: Final = 0
"""In place of the number of a hit."""


def _parse(text: str) -> dict[str, tuple[str, int]]:
    plan: dict[str, tuple[str, int]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = item.partition("=")
        action, _, hit = action.partition("@")
        if name not in FAULT_POINTS:
            raise ValueError(f"unknown fault point {name!r}")
        plan[name] = (action, EVERY if hit == "*" else int(hit or 1))
    return plan


_CANCELLED_WITHIN_S: Final = 60.0

_plan = _parse(os.environ.get("TIDELOG_FAULTS", ""))
_hits: Counter[str] = Counter()


def arm(text: str) -> None:
    """Replace the plan, for tests in this process; an empty text disarms."""
    _plan.clear()
    _hits.clear()
    _plan.update(_parse(text))


async def fault_point(name: str) -> None:
    """Do nothing, unless a test armed this point."""
    if not _plan:
        return
    if name not in FAULT_POINTS:
        raise ValueError(f"unknown fault point {name!r}")
    _hits[name] += 1
    action, hit = _plan.get(name, ("", -1))
    if hit not in (EVERY, _hits[name]):
        return
    await _act(name, action)


async def _act(name: str, action: str) -> None:
    kind, _, value = action.partition(":")
    if kind == "transient":
        raise StorageUnavailable(f"fault injected at {name}")
    if kind == "permanent":
        raise IntegrityError(f"fault injected at {name}")
    if kind == "cancel":
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(_CANCELLED_WITHIN_S)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "sleep":
        await asyncio.sleep(float(value))
    else:
        raise ValueError(f"unknown fault action {action!r} at {name}")
