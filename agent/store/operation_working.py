"""What the worker of a part writes: fenced by the epoch of the work lease."""

from __future__ import annotations

from typing import Final

from agent.errors import LeaseLost, OperationCancelled
from agent.store.connection import translated
from agent.store.operation_reading import OperationReading
from agent.store.operation_updates import (
    TERMINAL,
    UNFINISHED,
    Document,
    Pipeline,
    literal,
    part_change,
)
from agent.wire.operations import ErrorRecord, Operation, Progress, State

WORKABLE: Final = [State.ELECTING.value, State.PREPARING.value, State.RUNNING.value]


class OperationWorking(OperationReading):
    """Take a part, and say how far it is."""

    async def take_part(self, op_id: str, replset: str, node: str, epoch: int) -> Operation:
        """Work on a part from now on. Raises `LeaseLost` if somebody works on it with a higher
        epoch, `Conflict` if it is over or the operation is not at that point."""
        part = {"replset": replset, "epoch": {"$lt": epoch}, "state": {"$nin": TERMINAL}}
        match = {
            "state": {"$in": WORKABLE},
            "cancel_requested": {"$ne": True},
            "parts": {"$elemMatch": part},
        }
        pipeline = part_change(
            replset,
            state=State.PREPARING,
            progress=None,
            result=None,
            error=None,
            attempts={"$add": ["$$part.attempts", 1]},
            node=literal(node),
            epoch=epoch,
            extra={"node": literal(node), "epoch": epoch},
        )
        return await self._part_change(
            op_id,
            replset,
            match,
            pipeline,
            "taking the part",
            epoch,
            done_if=State.PREPARING,
        )

    async def update_part(
        self,
        op_id: str,
        replset: str,
        epoch: int,
        *,
        state: State | None = None,
        progress: Progress | None = None,
        result: Document | None = None,
        error: ErrorRecord | None = None,
        attempts: int | None = None,
        note: str | None = None,
    ) -> Operation:
        """Write of a part what is given, as its worker; `result` is merged. Agents are woken by
        what one of them waits for: a result, an error, a note, an end. Raises `LeaseLost` when
        somebody else works on it, or it or the operation is over."""
        pipeline = part_change(
            replset,
            state=state,
            progress=progress,
            result=result,
            error=error,
            attempts=attempts,
            node=_worker(replset),
            epoch=epoch,
            note=note,
        )
        is_under_way = state in (None, State.RUNNING)
        is_awaited = not is_under_way or any(one is not None for one in (result, error, note))
        return await self._part_change(
            op_id,
            replset,
            _worked_on(replset, epoch),
            pipeline,
            "writing the part",
            epoch,
            wake=is_awaited,
            done_if=state,
        )

    async def hand_over_part(self, op_id: str, replset: str, epoch: int, *, note: str) -> Operation:
        """Give a part back unharmed: this attempt does not count."""
        pipeline = part_change(
            replset,
            state=None,
            progress=None,
            result=None,
            error=None,
            attempts={"$max": [0, {"$subtract": ["$$part.attempts", 1]}]},
            node=_worker(replset),
            epoch=epoch,
            note=note,
        )
        return await self._part_change(
            op_id, replset, _worked_on(replset, epoch), pipeline, "handing the part over", epoch
        )

    async def _part_change(
        self,
        op_id: str,
        replset: str,
        match: Document,
        pipeline: Pipeline,
        action: str,
        epoch: int,
        *,
        wake: bool = True,
        done_if: State | None = None,
    ) -> Operation:
        with translated(f"{action} of {replset}"):
            changed = await self._update({"_id": op_id, **match}, pipeline, wake=wake)
        if changed is not None:
            return changed
        now = await self.get(op_id)
        part = now.part(replset)
        if part is not None and part.epoch == epoch and part.state is done_if:
            await self._wake(op_id, if_asked=wake)
            return now  # our own write, whose answer was lost
        await self._check_confirmed(op_id, match, action)
        what = f"{action} of {replset} in {now.kind} {now.name}"
        if now.cancel_requested and not now.state.is_terminal:
            raise OperationCancelled(f"{what}: it was cancelled")
        if part is not None and part.epoch > epoch:
            raise LeaseLost(f"{what}: {part.node} works on it now")
        raise LeaseLost(f"{what}: the operation is {now.state}, its part {part and part.state}")


def _worked_on(replset: str, epoch: int) -> Document:
    part = {"replset": replset, "epoch": epoch, "state": {"$nin": TERMINAL}}
    return {"state": {"$in": UNFINISHED}, "parts": {"$elemMatch": part}}


def _worker(replset: str) -> Document:
    """The node of a part, as an expression."""
    mine = {"$eq": ["$$part.replset", literal(replset)]}
    found = {"$filter": {"input": "$parts", "as": "part", "cond": mine}}
    return {"$arrayElemAt": [{"$map": {"input": found, "in": "$$this.node"}}, 0]}
