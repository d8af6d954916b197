"""Where the copies of what goes lie: found out before anything is touched, and written down, since
the catalogue forgets the copies on the way."""

from __future__ import annotations

from typing import Final

from agent.errors import TidelogError, Transient
from agent.operations.context import LeadContext
from agent.operations.copies import known_backup, opened, profile_of
from agent.operations.removal.plan import Plan, Reason
from agent.operations.repository import looked_at
from agent.wire.backups import Backup
from agent.wire.operations import Operation

PLACES: Final = "places"
"""Field of the result: `{backup: [[profile, repository id], …]}`."""

Found = dict[str, list[list[str]]]


async def with_places(
    lead: LeadContext, operation: Operation, plan: Plan, *, profile: str | None, must: bool
) -> tuple[Plan, Found]:
    """`[profile, repository id]` of each copy to delete, by backup. What cannot be reached now
    stays, with the reason, unless it `must` go: then its error is raised."""
    if PLACES in operation.result:
        noted: Found = operation.result[PLACES]
        return plan, noted
    found: Found = {}
    kept: list[Reason] = []
    for reason in plan.backups:
        known = await known_backup(lead.services, reason.name)
        if known is None:
            continue
        try:
            found[reason.name] = await _places(lead, known, profile)
        except TidelogError as error:
            if must or (isinstance(error, Transient) and operation.attempts < 2):
                raise
            kept.append(Reason(name=reason.name, reason=str(error)))
    if kept:
        out = {reason.name for reason in kept}
        plan = plan.model_copy(
            update={
                "backups": tuple(r for r in plan.backups if r.name not in out),
                "kept": (*plan.kept, *kept),
            }
        )
    await lead.services.operations.merge_result(
        operation.id, lead.lease.epoch, {PLACES: found, "plan": plan.to_document()}
    )
    return plan, found


async def _places(lead: LeadContext, backup: Backup, profile: str | None) -> list[list[str]]:
    found = []
    for copy in backup.places:
        if profile is None:
            alone = backup.model_copy(update={"copies": (copy,)})
            where = await profile_of(lead.services, lead.settings, alone)
            found.append([where, copy.repository_id])
        elif await _leads_to(lead, profile, copy.repository_id):
            found.append([profile, copy.repository_id])
    return found


async def _leads_to(lead: LeadContext, profile: str, repository: str) -> bool:
    async with opened(lead.services, lead.settings, profile) as storage:
        marker = await looked_at(lead.services, lead.settings, profile, storage)
    return marker is not None and marker.repository_id == repository
