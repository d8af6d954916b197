"""Operations: what was asked for and how far it is. One document each, and it is the truth.

Every change is one compare-and-set, majority-committed, in the server's time, fenced by the epoch
of the lease its writer holds; every change but mere progress wakes the agents. A change that
matches nothing is looked at again: `LeaseLost` where somebody else has the higher epoch, `Conflict`
where the operation is elsewhere than thought.
"""

from __future__ import annotations

from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from agent.errors import Conflict, Refused
from agent.store.connection import translated
from agent.store.operation_leading import OperationLeading
from agent.store.operation_reading import BY_AGE
from agent.store.operation_updates import TERMINAL, Document, literal, transition, with_history
from agent.store.operation_working import WORKABLE, OperationWorking
from agent.wire.collections import SCHEMA_VERSION
from agent.wire.ids import new_operation_id
from agent.wire.operations import Kind, Operation, State

SLOT: Final = "exclusive"
_TRIES: Final = 100
_CANCELLABLE: Final = [State.REQUESTED.value, *WORKABLE]
_WRITES_DATA: Final = [kind.value for kind in Kind if kind.writes_data]


class OperationLog(OperationLeading, OperationWorking):
    """The operations. Raises `StoreUnavailable` when an outcome is not known: read again."""

    async def submit(
        self,
        kind: Kind,
        spec: Document,
        *,
        requested_by: str,
        queue: bool = False,
        name: str | None = None,
        op_id: str | None = None,
    ) -> Operation:
        """Ask for an operation; agents carry it out, those that start later too. Without a name it
        gets the server's time for one. With an `op_id` that exists nothing is asked again: it is
        answered as it is. Raises `Conflict` with the one that is in the way, unless this one may
        queue."""
        op_id = op_id or new_operation_id()
        queued = queue and kind.is_exclusive
        document: Document = {
            "schema_version": SCHEMA_VERSION,
            "kind": kind.value,
            "spec": spec,
            "state": State.REQUESTED.value,
            "queued": queued,
            "requested_by": requested_by,
            "parts": [],
            "result": {},
        }
        if kind.is_exclusive and not queued:
            document["slot"] = SLOT
        namesakes = 0
        for _ in range(_TRIES):
            try:
                operation = await self._insert(op_id, document, _name(name, namesakes + 1))
            except DuplicateKeyError as error:
                if "_id" in (error.details or {}).get("keyPattern", {}):
                    await self._wake(op_id)
                    return await self.get(op_id)
                namesakes += await self._explain(error, kind, name)
                continue
            if queued:
                operation = await self.promote_queued(op_id) or operation
            return operation
        raise Conflict(f"no way to begin another {kind} in this second", hint="try again")

    async def _insert(self, op_id: str, document: Document, name: Any) -> Operation:
        server_side = {
            "name": name,
            "requested_at": "$$NOW",
            "updated_at": "$$NOW",
            "history": [{"at": "$$NOW", "state": "requested", "epoch": 0}],
        }
        whole = {"$mergeObjects": [{"_id": op_id}, literal(document), server_side]}
        with translated("writing the command"):
            # One that exists does not match, and inserting it again fails.
            fresh = {"_id": op_id, "kind": {"$exists": False}}
            made = await self._update(fresh, [{"$replaceWith": whole}], upsert=True)
        assert made is not None
        return made

    async def _explain(self, error: DuplicateKeyError, kind: Kind, name: str | None) -> int:
        """How many more namesakes there are than thought: 1, or 0 if the slot was taken and is
        free again. Raises `Conflict` where trying again makes no sense."""
        if "slot" not in (error.details or {}).get("keyPattern", {}):
            if name is not None:
                raise Conflict(f"there is a {kind} named {name} already", hint="choose another")
            return 1
        with translated("looking for the operation in progress"):
            running = await self._collection.find_one({"slot": SLOT})
        if running is not None:
            raise Conflict(
                f"another operation in progress: {running['kind']} {running['name']}"
                f" ({running['_id']})",
                hint=None if kind.may_queue else "wait for it, or cancel it",
            )
        return 0

    async def promote_queued(self, op_id: str | None = None) -> Operation | None:
        """Let the oldest queued operation begin if no other is in progress; answers it then, or
        only the one asked for."""
        with translated("beginning the next queued operation"):
            oldest = await self._collection.find_one(
                {"queued": True, "state": State.REQUESTED.value}, {"_id": 1}, sort=BY_AGE
            )
            if oldest is None:
                return None
            try:
                begun = await self._update(
                    {"_id": oldest["_id"], "queued": True, "state": State.REQUESTED.value},
                    [{"$set": {"queued": False, "slot": SLOT, "updated_at": "$$NOW"}}],
                )
            except DuplicateKeyError:
                return None
        return begun if begun is not None and op_id in (None, begun.id) else None

    async def request_cancel(self, op_id: str) -> Operation:
        """Ask that it stop; one that is queued, or that nobody has begun, ends at once. Raises
        `Refused` when it is too late, `NotFound`."""
        asked = {
            "cancel_requested": True,
            "updated_at": "$$NOW",
            "history": with_history("cancel requested"),
        }
        ended: list[tuple[Document, str]] = [
            ({"queued": True}, "cancelled while it was queued"),
            ({"lead_epoch": {"$not": {"$gt": 0}}}, "cancelled before anybody had begun"),
        ]
        changed = None
        with translated("cancelling the operation"):
            for waiting, note in ended:
                match: Document = {"_id": op_id, "state": State.REQUESTED.value, **waiting}
                pipeline = transition(State.CANCELLED, result=None, error=None, note=note)
                changed = changed or await self._update(match, pipeline)
            # Half of what writes data helps nobody.
            match = {"kind": {"$nin": _WRITES_DATA}, "state": {"$in": _CANCELLABLE}}
            changed = changed or await self._update(
                {"_id": op_id, "queued": {"$ne": True}, **match}, [{"$set": asked}]
            )
        if changed is None:
            now = await self.get(op_id)
            raise Refused(f"{now.kind} {now.name} cannot be cancelled: it is {now.state}")
        return changed

    async def prune(self, keep: int = 1000) -> int:
        """Forget the oldest operations that are over, beyond a number; how many were forgotten."""
        over = {"state": {"$in": TERMINAL}}
        with translated("forgetting old operations"):
            cursor = self._collection.find(over, {"_id": 1}).sort("requested_at", -1).skip(keep)
            old = [row["_id"] for row in await cursor.to_list(1000)]
            if old:
                await self._collection.delete_many({"_id": {"$in": old}, **over})
        return len(old)


def _name(name: str | None, attempt: int) -> Any:
    """`wire.ids.name_for` of the server's time, as an expression."""
    if name is not None:
        return literal(name)
    suffix = "" if attempt == 1 else f"-{attempt}"
    return {"$dateToString": {"date": "$$NOW", "format": f"%Y-%m-%dT%H:%M:%SZ{suffix}"}}
