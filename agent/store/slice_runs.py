"""Runs of slices and gaps, as the slicers note them: a cache, rebuilt from storage by resync.

A run is one document whatever its length; the epoch of its writer fences every change, so that a
slicer that lost its lease without knowing it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from agent.errors import LeaseLost
from agent.store.connection import Control, translated
from agent.store.operation_updates import literal
from agent.wire.collections import SLICES
from agent.wire.optime import OpTime
from agent.wire.timelines import Gap, Run

_RUN: Final = "run"
_GAP: Final = "gap"
_TROUBLE: Final = "trouble"
_TOUCHED: Final = "touched"


class SliceRuns:
    """The archived oplog, replica set by replica set."""

    def __init__(self, control: Control) -> None:
        self._collection = control.collection(SLICES)

    async def runs(self, replset: str | None = None) -> list[Run]:
        """All runs, ascending."""
        chosen = {"kind": _RUN} if replset is None else {"kind": _RUN, "replset": replset}
        with translated("reading the runs of slices"):
            rows = await self._collection.find(chosen).sort("start", 1).to_list(None)
        return [Run.from_document(row) for row in rows]

    async def gaps(self) -> list[Gap]:
        """All recorded gaps, ascending."""
        with translated("reading the gaps"):
            rows = await self._collection.find({"kind": _GAP}).sort("start", 1).to_list(None)
        return [Gap.from_document(row) for row in rows]

    async def save(self, run: Run) -> None:
        """Write a run as it is now. Raises `LeaseLost` when a higher epoch owns it or a restore
        sealed it."""
        # What retention did meanwhile is not the writer's to undo.
        kept = {
            "start": {"$max": ["$start", literal(run.start.to_document())]},
            "removed_slices": {"$ifNull": ["$removed_slices", 0]},
            "removed_bytes": {"$ifNull": ["$removed_bytes", 0]},
        }
        whole = _stamped({**run.to_document(), "kind": _RUN}, "updated_at", kept)
        with translated(f"noting the slices of {run.replset}"):
            changed = await self._collection.update_one(
                {"_id": run.id, "epoch": {"$lte": run.epoch}, "sealed": {"$ne": True}}, whole
            )
            if changed.matched_count:
                return
            if await self._collection.find_one({"_id": run.id}, {"_id": 1}) is None:
                await self._collection.update_one({"_id": run.id}, whole, upsert=True)
                return
        raise LeaseLost(f"the slices of {run.replset} are no longer this agent's to continue")

    async def seal(self, replset: str, at: OpTime) -> None:
        """No run of this replica set is continued any more: what comes after `at` is another
        timeline, and no backup from before it leads there. Restores call it before they touch
        anything."""
        identity = f"{_TOUCHED}/{replset}"
        fixed = {"kind": _TOUCHED, "replset": replset}
        latest = {"$max": ["$optime", literal(at.to_document())]}
        with translated(f"sealing the slices of {replset}"):
            await self._collection.update_one(
                {"_id": identity}, [{"$set": {**fixed, "optime": latest}}], upsert=True
            )
            await self._collection.update_many(
                {"kind": _RUN, "replset": replset}, {"$set": {"sealed": True}}
            )

    async def touched_at(self, replset: str) -> OpTime | None:
        """When a restore touched this replica set last, as far as is known."""
        with translated(f"reading when {replset} was restored"):
            found = await self._collection.find_one({"_id": f"{_TOUCHED}/{replset}"})
        return None if found is None else OpTime.from_document(found["optime"])

    async def restore(self, run: Run) -> None:
        """Note a run as storage tells it. One that may be continued is left alone where it is
        known: its writer knows it better."""
        whole = _stamped({**run.to_document(), "kind": _RUN}, "updated_at")
        chosen: dict[str, Any] = {"_id": run.id}
        with translated(f"restoring the slices of {run.replset}"):
            if not run.sealed and await self._collection.find_one(chosen, {"_id": 1}) is not None:
                return
            await self._collection.update_one(chosen, whole, upsert=True)

    async def forget(self, ids: Iterable[str]) -> None:
        """Drop runs of which storage holds nothing."""
        with translated("forgetting slices that are gone"):
            await self._collection.delete_many({"kind": _RUN, "_id": {"$in": list(ids)}})

    async def record_gap(self, gap: Gap, *, is_better: bool = True) -> None:
        """Note a hole; the same one again changes nothing. One that is already known stays as it
        is unless this record of it `is_better`."""
        identity = f"gap/{gap.replset}/{gap.start.key}"
        whole = _stamped({**gap.to_document(), "_id": identity, "kind": _GAP}, "at")
        with translated("recording a gap"):
            if not is_better and await self._collection.find_one({"_id": identity}, {"_id": 1}):
                return
            await self._collection.update_one({"_id": identity}, whole, upsert=True)

    async def note_trouble(self, replset: str, error: str | None) -> None:
        """Say why slicing of a replica set cannot begin, or stands still; None where it goes on."""
        identity = f"{_TROUBLE}/{replset}"
        with translated(f"noting why {replset} is not sliced"):
            if error is None:
                await self._collection.delete_one({"_id": identity})
                return
            document = {"_id": identity, "kind": _TROUBLE, "replset": replset, "error": error}
            await self._collection.update_one(
                {"_id": identity}, _stamped(document, "at"), upsert=True
            )

    async def troubles(self) -> dict[str, str]:
        """Why slicing cannot begin or stands still, by replica set."""
        with translated("reading why nothing is sliced"):
            rows = await self._collection.find({"kind": _TROUBLE}).sort("_id", 1).to_list(None)
        return {row["replset"]: row["error"] for row in rows}

    async def trim(self, run_id: str, start: OpTime, *, slices: int, size_bytes: int) -> None:
        """A run begins later from now on: so many of its slices are being deleted. Its writer may
        go on adding at the other end."""
        change = {
            "start": {"$max": ["$start", literal(start.to_document())]},
            "removed_slices": {"$add": [{"$ifNull": ["$removed_slices", 0]}, slices]},
            "removed_bytes": {"$add": [{"$ifNull": ["$removed_bytes", 0]}, size_bytes]},
        }
        with translated("noting that old slices go"):
            await self._collection.update_one({"_id": run_id, "kind": _RUN}, [{"$set": change}])

    async def forget_gaps(self, replset: str, until: OpTime) -> None:
        """Drop the gaps that end at or before a moment: nothing around them is kept any more."""
        with translated("forgetting old gaps"):
            await self._collection.delete_many(
                {"kind": _GAP, "replset": replset, "end": {"$lte": until.to_document()}}
            )


def _stamped(
    document: dict[str, Any], stamp: str, kept: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """An update that writes a whole document, with the server's time in one field, and some fields
    computed from what they were."""
    document.pop(stamp, None)
    return [{"$replaceWith": {"$mergeObjects": [literal(document), {stamp: "$$NOW"}, kept or {}]}}]
