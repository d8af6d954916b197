"""The scheduler's memory: one document beside the settings, fenced by the scheduler's epoch.

Field by field, since two write it: the scheduler what it has dealt with, a cleanup what it found.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from agent.errors import LeaseLost
from agent.store.connection import Control, translated
from agent.store.operation_updates import literal
from agent.wire.collections import CONFIG
from agent.wire.schedule_state import MANY_ORPHANS, Orphans, ScheduleState, TaskState

SCHEDULE_ID: Final = "schedule"


class ScheduleStore:
    """Read it with the server's time; write parts of it."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._collection = control.collection(CONFIG)

    async def read(self) -> ScheduleState:
        """As it is now."""
        with translated("reading the state of the schedules"):
            rows = self._collection.aggregate(
                [{"$match": {"_id": SCHEDULE_ID}}, {"$set": {"now": "$$NOW"}}]
            )
            found = next(iter(await rows.to_list(1)), None)
        if found is None:
            return ScheduleState(now=(await self._control.now()).wall())
        return ScheduleState.from_document(found)

    async def record_task(self, epoch: int, name: str, state: TaskState) -> None:
        """What became of a schedule's moment. Raises `LeaseLost` where a later scheduler wrote."""
        await self._fenced(epoch, {f"tasks.{name}": literal(state.to_document())})

    async def forget_tasks(self, epoch: int, names: list[str]) -> None:
        """Schedules that are no longer in the settings. Raises `LeaseLost`."""
        with translated("forgetting schedules"):
            await self._collection.update_one(
                {"_id": SCHEDULE_ID, "epoch": {"$not": {"$gt": epoch}}},
                [{"$set": {"epoch": epoch}}, {"$unset": [f"tasks.{name}" for name in names]}],
            )

    async def record_cleanup(self, epoch: int) -> None:
        """The policy has asked for a cleanup just now. Raises `LeaseLost`."""
        await self._fenced(epoch, {"cleaned_at": "$$NOW"})

    async def record_sweep(self, began_at: datetime, left: Mapping[str, Orphans]) -> None:
        """A sweep that began then has ended and left these alone."""
        known = {name: left[name].to_document() for name in sorted(left)[:MANY_ORPHANS]}
        change = {"swept_at": literal(began_at), "orphans": literal(known)}
        with translated("noting what a sweep found"):
            # Twice, because `$set` would merge the orphans with those that are known already.
            await self._collection.update_one(
                {"_id": SCHEDULE_ID}, [{"$unset": "orphans"}, {"$set": change}], upsert=True
            )

    async def _fenced(self, epoch: int, change: dict[str, Any]) -> None:
        newest = {"$max": [epoch, {"$ifNull": ["$epoch", 0]}]}
        with translated("writing the state of the schedules"):
            try:
                await self._collection.update_one(
                    {"_id": SCHEDULE_ID, "epoch": {"$not": {"$gt": epoch}}},
                    [{"$set": {**change, "epoch": newest}}],
                    upsert=True,
                )
            except DuplicateKeyError:
                raise LeaseLost("another agent looks after the schedules now") from None
