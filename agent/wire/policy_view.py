"""What the policy did, does and will do, as plain JSON values."""

from __future__ import annotations

from typing import Any

from agent.wire.policy import PolicySettings
from agent.wire.schedule_state import ScheduleState
from agent.wire.wording import epoch


def next_runs(policy: PolicySettings, state: ScheduleState) -> list[dict[str, Any]]:
    """Of each schedule its next moment and what became of the last one, the soonest first."""
    from agent.wire.schedules import next_moment  # heavy, and needed only with a policy

    found = []
    for name, task in policy.tasks.items():
        known = state.tasks.get(name)
        coming = next_moment(task.schedule, policy.zone, state.now) if task.enabled else None
        found.append(
            {
                "schedule": name,
                "kind": "backup" if name in policy.backups else "verify",
                "cron": task.schedule,
                "timezone": policy.timezone,
                "next": epoch(coming),
                "in_s": round((coming - state.now).total_seconds()) if coming else None,
                "last": epoch(known.handled) if known else None,
                "last_outcome": known.outcome if known else None,
                "last_op_id": known.op_id if known else None,
                "missed": known.missed if known else 0,
            }
        )
    return sorted(found, key=lambda run: (run["next"] is None, run["next"]))


def section(policy: PolicySettings, state: ScheduleState) -> dict[str, Any]:
    """What `status` shows."""
    keep = policy.keep.model_dump(exclude_none=True)
    return {
        "runs": next_runs(policy, state),
        "keep": keep,
        "pitr_window_s": policy.pitr_window,
        "cleaned": epoch(state.cleaned_at),
        "swept": epoch(state.swept_at),
        "orphans": sum(each.objects for each in state.orphans.values()),
    }
