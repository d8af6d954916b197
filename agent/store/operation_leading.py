"""What the lead of an operation writes: fenced by the epoch of the lead lease."""

from __future__ import annotations

from typing import Final

from agent.errors import Conflict, LeaseLost, OperationCancelled
from agent.store.connection import translated
from agent.store.operation_reading import OperationReading
from agent.store.operation_updates import (
    UNFINISHED,
    Document,
    Pipeline,
    literal,
    merged,
    transition,
    with_history,
)
from agent.wire.operations import ErrorRecord, Operation, Part, State, may_move
from agent.wire.settings import Settings

TAKING: Final = "taking the lead"
_UNAWAITED: Final = (State.PREPARING, State.PUBLISHING)
"""States that only the lead itself goes on from: nobody else has to look."""


class OperationLeading(OperationReading):
    """Take the lead, and move the whole on."""

    async def take_lead(self, op_id: str, node: str, epoch: int) -> Operation:
        """Lead it from now on. Raises `LeaseLost` if somebody leads with a higher epoch, or if it
        is over: whoever led it before may have ended it since we looked."""
        pipeline = [
            {
                "$set": {
                    "lead_node": literal(node),
                    "lead_epoch": epoch,
                    "attempts": {"$add": [{"$ifNull": ["$attempts", 0]}, 1]},
                    "updated_at": "$$NOW",
                    "history": with_history("led", node=literal(node), epoch=epoch),
                }
            }
        ]
        match = {"state": {"$in": UNFINISHED}, "lead_epoch": {"$not": {"$gte": epoch}}}
        return await self._lead_change(op_id, match, pipeline, TAKING, epoch, wake=False)

    async def transition(
        self,
        op_id: str,
        before: State,
        after: State,
        *,
        epoch: int,
        result: Document | None = None,
        error: ErrorRecord | None = None,
        note: str | None = None,
    ) -> Operation:
        """Move on from a named state, as the lead of this epoch. Raises `LeaseLost`, `Conflict`,
        and `OperationCancelled` instead of publishing what somebody cancelled."""
        if not may_move(before, after):
            raise ValueError(f"an operation cannot go from {before} to {after}")
        match: Document = {"state": before.value, "lead_epoch": epoch}
        if after is State.PUBLISHING:
            match["cancel_requested"] = {"$ne": True}
        pipeline = transition(after, result=result, error=error, note=note)
        return await self._lead_change(
            op_id,
            match,
            pipeline,
            f"moving the operation to {after}",
            epoch,
            wake=after not in _UNAWAITED,
            done_if=after,
        )

    async def set_parts(
        self,
        op_id: str,
        epoch: int,
        replsets: list[str],
        *,
        settings: Settings | None = None,
        version: int | None = None,
    ) -> Operation:
        """Name the replica sets that get a part, before any of them works, and pin the settings."""
        change: Document = {
            "parts": literal([Part(replset=replset).to_document() for replset in replsets]),
            "updated_at": "$$NOW",
        }
        if settings is not None:
            change |= {
                "settings": literal(settings.to_document()),
                "settings_version": literal(version),
            }
        match = {"state": State.REQUESTED.value, "lead_epoch": epoch}
        return await self._lead_change(
            op_id, match, [{"$set": change}], "writing the parts", epoch, wake=False
        )

    async def note(self, op_id: str, epoch: int, text: str) -> Operation:
        """Put a remark into the history, as the lead."""
        match = {"state": {"$in": UNFINISHED}, "lead_epoch": epoch}
        change = {"history": with_history("noted", note=text)}
        return await self._lead_change(
            op_id, match, [{"$set": change}], "writing a note", epoch, wake=False
        )

    async def hand_over_lead(self, op_id: str, epoch: int, *, note: str) -> Operation:
        """Stop leading in good order: this attempt does not count."""
        change = {
            "attempts": {"$max": [0, {"$subtract": ["$attempts", 1]}]},
            "history": with_history("handed over", note=note),
        }
        match = {"state": {"$in": UNFINISHED}, "lead_epoch": epoch}
        return await self._lead_change(
            op_id, match, [{"$set": change}], "handing the lead over", epoch
        )

    async def forgive(self, op_id: str, epoch: int) -> Operation:
        """This lead goes well: earlier attempts no longer count."""
        match = {"state": {"$in": UNFINISHED}, "lead_epoch": epoch}
        return await self._lead_change(
            op_id, match, [{"$set": {"attempts": 1}}], "forgetting attempts", epoch, wake=False
        )

    async def merge_result(self, op_id: str, epoch: int, fields: Document) -> Operation:
        """Put fields into the operation's result, as its lead."""
        match = {"state": {"$in": UNFINISHED}, "lead_epoch": epoch}
        pipeline = [{"$set": {"result": merged("$result", fields), "updated_at": "$$NOW"}}]
        return await self._lead_change(op_id, match, pipeline, "writing the result", epoch)

    async def pin_settings(self, op_id: str, epoch: int, version: int) -> Operation:
        """Remember the version of the settings that it works with."""
        match = {"state": {"$in": UNFINISHED}, "lead_epoch": epoch}
        pipeline = [{"$set": {"settings_version": version}}]
        return await self._lead_change(
            op_id, match, pipeline, "pinning the settings", epoch, wake=False
        )

    async def _lead_change(
        self,
        op_id: str,
        match: Document,
        pipeline: Pipeline,
        action: str,
        epoch: int,
        *,
        wake: bool = True,
        done_if: State | None = None,
    ) -> Operation:
        with translated(action):
            changed = await self._update({"_id": op_id, **match}, pipeline, wake=wake)
        if changed is not None:
            return changed
        now = await self.get(op_id)
        if now.lead_epoch == epoch and (now.state is done_if or action == TAKING):
            await self._wake(op_id, if_asked=wake)
            return now  # our own write, whose answer was lost
        await self._check_confirmed(op_id, match, action)
        if now.lead_epoch > epoch:
            raise LeaseLost(f"{action}: {now.lead_node} leads {now.kind} {now.name} now")
        if action == TAKING and now.state.is_terminal:
            raise LeaseLost(f"{action}: {now.kind} {now.name} is over: {now.state}")
        if now.cancel_requested and not now.state.is_terminal:
            raise OperationCancelled(f"{now.kind} {now.name} was cancelled")
        raise Conflict(f"{action}: {now.kind} {now.name} is {now.state}", hint="")
