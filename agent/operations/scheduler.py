"""The scheduler: one agent of the lead replica set asks for what the policy wants, in server time.

It holds a lease, and what it writes to its memory matches the lease's epoch. A moment is dealt with
in two steps, ask and remember; whoever dies in between is followed by another who asks again under
the same id, which changes nothing. So a schedule's moment is one operation, whoever is paused,
killed or awake twice. The agents carry the operations out like any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog

from agent.clock import jittered
from agent.coordination.lease import HeldLease
from agent.coordination.recent_settings import SettingsSource
from agent.errors import Conflict, Superseded, TidelogError, Transient
from agent.faults import fault_point
from agent.operations.context import Services
from agent.operations.scheduling import (
    Step,
    after,
    cleanup_reason,
    operation_id,
    requester,
    steps,
    wanted,
)
from agent.wire.backups import Backup
from agent.wire.leases import SCHEDULER
from agent.wire.operations import Kind, Operation
from agent.wire.places import Places
from agent.wire.schedule_state import ScheduleState
from agent.wire.settings import Settings
from agent.wire.specs import CleanupSpec
from agent.wire.timelines import Span, coverage

LOOK_EVERY_S: Final = 10.0
RETENTION_EVERY_S: Final = 30.0
"""How often it is looked whether a cleanup is due; without schedules all that is looked at."""
RECENT: Final = 50
BY_POLICY: Final = "policy"

log = structlog.stdlib.get_logger()


class Scheduler:
    """This agent's share: `run` is for the agent's task group."""

    def __init__(self, services: Services, settings: SettingsSource, *, lead_replset: str) -> None:
        self._services = services
        self._settings = settings
        self._may_lead = services.node.replset == lead_replset
        self._retained_at = float("-inf")

    async def run(self) -> None:
        """Look after the schedules whenever the lease is ours, for ever."""
        while True:
            if self._may_lead:
                try:
                    await self._take_turn()
                except Superseded as error:
                    log.info("schedule.superseded", error=str(error))
                except Transient as error:
                    log.warning("schedule.held_up", error=str(error))
                except TidelogError as error:
                    log.error("schedule.failed", error=str(error), hint=error.hint)
            await self._services.clock.sleep(jittered(LOOK_EVERY_S))

    async def _take_turn(self) -> None:
        services = self._services
        settings, _ = await self._settings.read()
        if settings.storage is None:
            return  # a lease that nothing needs would be renewed for nothing
        lease = await services.leases.acquire(SCHEDULER, services.node.id)
        if lease is None:
            return
        async with services.holder.hold(lease) as held:
            log.info("schedule.led", epoch=held.epoch)
            while True:
                await self._look(held)
                await services.clock.sleep(jittered(LOOK_EVERY_S))

    async def _look(self, held: HeldLease) -> None:
        services = self._services
        settings, _ = await self._settings.read()
        if settings.storage is None:
            return
        now = services.clock.monotonic()
        is_time_to_retain = now - self._retained_at >= RETENTION_EVERY_S
        if not (settings.policy.tasks or is_time_to_retain):
            return
        state = await services.schedule.read()
        if state.swept_at is None:
            # The first sweep comes when as much time has passed as between any two.
            held.check()
            await services.schedule.record_sweep(state.now, {})
        if settings.policy.tasks:
            for step in steps(settings.policy, state, await services.operations.active()):
                await self._deal_with(held, settings, state, step)
        gone = sorted(set(state.tasks) - set(settings.policy.tasks))
        if gone:
            held.check()
            await services.schedule.forget_tasks(held.epoch, gone)
        if is_time_to_retain:
            self._retained_at = now
            await self._retain(held, settings, state)

    async def _deal_with(
        self, held: HeldLease, settings: Settings, state: ScheduleState, step: Step
    ) -> None:
        operation = await self._submitted(held, settings, step) if step.runs else None
        if operation is None and step.runs:
            step = replace(step, outcome="skipped", reason="there is no full backup to prove")
        held.check()
        op_id = operation.id if operation is not None else None
        await self._services.schedule.record_task(
            held.epoch, step.task, after(step, state.tasks.get(step.task), op_id)
        )
        await fault_point("schedule.recorded")
        moment = f"{step.moment:%Y-%m-%dT%H:%M:%SZ}"
        if operation is not None:
            log.info(
                "schedule.submitted",
                schedule=step.task,
                moment=moment,
                op_id=operation.id,
                caught_up=step.outcome == "caught up",
            )
        elif step.outcome == "begun":
            log.info("schedule.began", schedule=step.task)
        elif step.outcome == "skipped":
            log.warning("schedule.skipped", schedule=step.task, moment=moment, reason=step.reason)
        if step.missed:
            log.warning("schedule.missed", schedule=step.task, moment=moment, missed=step.missed)

    async def _submitted(self, held: HeldLease, settings: Settings, step: Step) -> Operation | None:
        newest = await self._newest(settings)
        asked = wanted(settings.policy.tasks[step.task], newest)
        if asked is None:
            return None
        held.check()
        kind, spec = asked
        operation = await self._services.operations.submit(
            kind,
            spec,
            requested_by=requester(step.task),
            queue=True,
            op_id=operation_id(step.task, step.moment),
        )
        await fault_point("schedule.submitted")
        return operation

    async def _newest(self, settings: Settings) -> str | None:
        """The newest full backup that some profile leads to."""
        places = Places(settings, await self._services.repositories.read())
        full = [
            backup
            for backup in await self._services.catalog.backups()
            if not backup.is_selective and places.is_within_reach(backup)
        ]
        return max(full, key=lambda backup: backup.last_write).id if full else None

    async def _retain(self, held: HeldLease, settings: Settings, state: ScheduleState) -> None:
        """Ask for a cleanup, if one is due."""
        services, policy = self._services, settings.policy
        backups, spans = await self._kept(settings) if policy.is_retaining else ([], [])
        operations = [
            *await services.operations.active(),
            *await services.operations.recent(RECENT),
        ]
        reason = cleanup_reason(policy, state, backups, spans, operations)
        if reason is None:
            return
        held.check()
        try:
            operation = await services.operations.submit(
                Kind.CLEANUP,
                CleanupSpec(by_policy=policy.is_retaining).to_document(),
                requested_by=BY_POLICY,
            )
        except Conflict:
            return  # the next look meets it again
        log.info("retention.due", reason=reason, op_id=operation.id)
        await services.schedule.record_cleanup(held.epoch)

    async def _kept(self, settings: Settings) -> tuple[list[Backup], list[Span]]:
        """What there is to be retained: backups, and what the archived oplog covers."""
        services = self._services
        places = Places(settings, await services.repositories.read())
        runs = places.runs(await services.runs.runs())
        return await services.catalog.backups(), coverage(runs)
