"""Liveness and readiness.

Live: the event loop turns, which the answer itself proves. Ready: this agent can do its work now.
A restart cures a dead agent and no other, so only liveness belongs into a supervisor's probe.
"""

from __future__ import annotations

from typing import Any, Final

from agent.web.model import View
from agent.wire.nodes import STALE_AFTER_S, Role
from agent.wire.safety import is_excluded

_WORKING: Final = frozenset({Role.PRIMARY, Role.SECONDARY, Role.HIDDEN, Role.DELAYED})


def reasons_not_ready(view: View) -> list[str]:
    """Why this agent could not do its work now; empty when it can."""
    heartbeat = view.local.heartbeat
    found, status = [], heartbeat.latest
    if heartbeat.silent_s >= STALE_AFTER_S:
        found.append(f"the control database has not answered for {heartbeat.silent_s:.0f} s")
    elif view.error is not None:
        found.append(view.error)
    if status is None:
        found.append("no heartbeat was sent yet")
    else:
        found += status.errors
        if status.role not in _WORKING:
            found.append(f"{status.host} is {status.role}")
        elif is_excluded(status):
            found.append(f"{status.host} is {status.lag_s:.0f} s behind its primary")
    if view.overview is not None and view.overview.settings.storage is None:
        found.append("no storage is configured")
    if heartbeat.condition.storage_error is not None:
        found.append(f"the storage cannot be used: {heartbeat.condition.storage_error}")
    if heartbeat.condition.key_usable is False:
        found.append("the encryption keys do not open what they should")
    return found


def readiness(view: View) -> dict[str, Any]:
    """The answer in full."""
    reasons = reasons_not_ready(view)
    status = view.local.heartbeat.latest
    return {
        "ready": not reasons,
        "reasons": reasons,
        "node": view.local.node,
        "role": str(status.role) if status is not None else None,
        "overview_age_s": round(view.age_s, 1) if view.overview is not None else None,
    }
