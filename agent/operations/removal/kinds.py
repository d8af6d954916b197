"""`delete-backup`, `delete-pitr` and `cleanup`: three ways to say what goes, one way to remove it.

choose    the plan is made and what a person named is refused, if it must be
finish    the plan is made again and stored in the operation; operations in progress are read
          once more, and what they read is taken out of it; then backups go one by one (the
          catalogue first), then slices, then what nothing refers to
again     after a crash the next lead goes on with the stored plan: every step is idempotent
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent.errors import (
    ConfigError,
    Permanent,
    Refused,
    StorageUnavailable,
    TidelogError,
    Transient,
)
from agent.faults import fault_point
from agent.operations.context import LeadContext, PartContext
from agent.operations.deletion import delete_backup
from agent.operations.listing import list_backup, list_missing
from agent.operations.removal.copies import with_places
from agent.operations.removal.plan import Plan, Reason, planned, read_known
from agent.operations.removal.slices import Removed, remove_slices
from agent.operations.removal.sweep import Sweep, Swept
from agent.operations.repository import claimed
from agent.storage.base import Storage
from agent.wire.operations import Kind, Operation
from agent.wire.profiles import MAIN
from agent.wire.profiles import names as profiles_of
from agent.wire.schedule_state import Orphans
from agent.wire.specs import CleanupSpec, DeleteBackupSpec

_PLANS = 5
"""So often a plan is made anew because somebody began to read meanwhile."""


class RemovalKind:
    """Removal of one of the three kinds, all by the lead."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    async def choose(self, lead: LeadContext, operation: Operation) -> list[str]:
        """What was named must exist, must not be held, needed or in use."""
        planned(await read_known(lead), operation, lead.settings)
        return []

    async def advance(self, lead: LeadContext, operation: Operation) -> None:
        """No parts."""

    async def work(self, part: PartContext) -> dict[str, Any]:
        """No parts."""
        raise NotImplementedError

    async def finish(self, lead: LeadContext, operation: Operation) -> dict[str, Any]:
        """Remove; idempotent."""
        if "plan" in operation.result:
            plan = Plan.from_document(operation.result["plan"])
        else:
            plan = await _stored_plan(lead, operation)
        removal = _Removal(lead, operation, plan)
        try:
            return await removal.run()
        finally:
            await removal.aclose()


async def _stored_plan(lead: LeadContext, operation: Operation) -> Plan:
    """The plan, written down where readers look before they begin; what one of them began to read
    before it was written is taken out again."""
    plan: Plan | None = None
    for _ in range(_PLANS):
        made = planned(await read_known(lead), operation, lead.settings)
        if made == plan:
            break
        plan = made
        await lead.services.operations.merge_result(
            operation.id, lead.lease.epoch, {"plan": plan.to_document()}
        )
        await fault_point("delete.planned")
    else:
        raise StorageUnavailable("what may be deleted changed again and again")
    return plan


class _Removal:
    """One lead carrying out one plan."""

    def __init__(self, lead: LeadContext, operation: Operation, plan: Plan) -> None:
        self._lead = lead
        self._operation = operation
        self._plan = plan
        self._storages: dict[str, Storage] = {}

    async def run(self) -> dict[str, Any]:
        plan, places = await self._with_places()
        objects = 0
        for reason in plan.backups:
            for profile, repository in places.get(reason.name, ()):
                objects += await self._delete(reason, profile, repository)
        removed = Removed() if plan.floor is None else await self._trim()
        swept = await self._sweep() if self._wants_sweep() else None
        return {
            "deleted": [reason.to_json() for reason in plan.backups],
            "kept": [reason.to_json() for reason in plan.kept],
            "slices": {
                "objects": removed.objects,
                "size": removed.size_bytes,
                "floor": plan.floor.to_json() if plan.floor else None,
                "reason": plan.floor_reason,
                "kept_for_backups": removed.kept_for_backups,
            },
            "swept": None if swept is None else _told(swept),
            "objects": objects + removed.objects + (swept.objects if swept else 0),
        }

    async def _with_places(self) -> tuple[Plan, dict[str, list[list[str]]]]:
        operation = self._operation
        profile, must = None, False
        if operation.kind is Kind.DELETE_BACKUP:
            spec = DeleteBackupSpec.from_document(operation.spec)
            profile, must = spec.profile, spec.older_than is None
        return await with_places(self._lead, operation, self._plan, profile=profile, must=must)

    async def _delete(self, reason: Reason, profile: str, repository: str) -> int:
        """One copy. It stays listed until its storage was reached."""
        lead = self._lead
        storage = await self._storage(profile)
        lead.lease.check()
        await lead.services.catalog.withdraw_copy(reason.name, repository)
        try:
            await fault_point("delete.withdrawn")
            known = [backup.id for backup in await lead.services.catalog.backups()]
            objects = await delete_backup(storage, reason.name, known=known, check=lead.lease.check)
        except (Permanent, Refused, ConfigError) as error:
            await self._list_again(storage, reason.name, profile, error)
            raise
        lead.log.info("backup.deleted", backup=reason.name, reason=reason.reason, objects=objects)
        return objects

    async def _list_again(
        self, storage: Storage, name: str, profile: str, error: TidelogError
    ) -> None:
        """It cannot go for good: as long as storage publishes it, it is a backup, and listed."""
        try:
            await list_backup(self._lead.services.catalog, storage, name, profile)
        except TidelogError as other:
            error.add_note(f"it could not be listed again: {other}")

    async def _trim(self) -> Removed:
        lead, plan = self._lead, self._plan
        assert plan.floor is not None
        known = await read_known(lead)
        removed = await remove_slices(
            lead.services.runs,
            known.runs,
            await self._storage(MAIN),
            plan.floor,
            backups=[backup.id for backup in known.backups],
            is_slicing=lead.settings.pitr.enabled,
            check=lead.lease.check,
        )
        if removed.objects:
            lead.log.info(
                "slices.deleted",
                objects=removed.objects,
                size_bytes=removed.size_bytes,
                floor=str(plan.floor),
                reason=plan.floor_reason,
            )
        return removed

    def _wants_sweep(self) -> bool:
        spec = self._operation.spec
        return self._operation.kind is Kind.CLEANUP and CleanupSpec.from_document(spec).sweep

    async def _sweep(self) -> Swept:
        schedule = self._lead.services.schedule
        state = await schedule.read()
        swept = Swept()
        for profile in profiles_of(self._lead.settings):
            try:
                storage = await self._storage(profile)
                label = "" if profile == MAIN else f" on {profile}"
                sweep = Sweep(self._lead, storage, now=state.now, known=state.orphans, label=label)
                await sweep.run(swept)
                catalog = self._lead.services.catalog
                swept.listed += await list_missing(catalog, storage, sweep.published, profile)
            except (Transient, Permanent, Refused, ConfigError) as error:
                if profile == MAIN:
                    raise
                self._lead.log.warning("sweep.failed", profile=profile, error=str(error))
        self._lead.lease.check()
        await schedule.record_sweep(state.now, swept.left)
        if swept.left:
            self._lead.log.info(
                "sweep.waiting",
                writers=len(swept.left),
                objects=sum(left.objects for left in swept.left.values()),
                until=str(_oldest(swept.left)),
            )
        return swept

    async def _storage(self, profile: str) -> Storage:
        if profile not in self._storages:
            lead = self._lead
            storage = await lead.services.open_storage(lead.settings, profile)
            self._storages[profile] = storage
            await claimed(lead.services, lead.settings, profile, storage)
        return self._storages[profile]

    async def aclose(self) -> None:
        for storage in self._storages.values():
            await storage.aclose()


def _oldest(left: dict[str, Orphans]) -> datetime:
    return min(orphans.first_seen for orphans in left.values())


def _told(swept: Swept) -> dict[str, Any]:
    return {
        "objects": swept.objects,
        "size": swept.size_bytes,
        "writers": swept.writers[:100],
        "listed": swept.listed[:100],
        "waiting": {name: left.to_json() for name, left in sorted(swept.left.items())[:100]},
    }
