"""Keeping the balancer from moving ranges for a while, and putting it back as it was.

The balancer is switched by one document of `config.settings`. Before it is changed, a record of
what it was and what it will be goes to the control database; so whoever comes later, after any
crash, can put it back, and does so only where it still is what we made of it: what a person changed
meanwhile stays. We set `stopped` alone and leave `mode` as it is; `sh.stopBalancer()` sets both,
which tells a person's stop from ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pymongo.errors import DuplicateKeyError

from agent.errors import Conflict
from agent.store.connection import Control, translated
from agent.store.operation_updates import literal
from agent.wire.collections import CONFIG

Document = dict[str, Any]

RECORD_ID: Final = "balancer"
PAUSE_AT_MOST_S: Final = 12 * 3600.0
"""After so long it is put back though its owner still works: it moves ranges for a reason."""
_TRIES: Final = 5


class Balancer:
    """The balancer of a sharded cluster; of a replica set there is none, and nothing happens."""

    def __init__(self, control: Control) -> None:
        self._is_sharded = control.is_config
        self._records = control.collection(CONFIG)
        self._settings = control.client.get_database(
            "config",
            codec_options=control.database.codec_options,
            read_concern=control.database.read_concern,
            write_concern=control.database.write_concern,
        )["settings"]

    async def pause(self, op_id: str, *, at_most_s: float = PAUSE_AT_MOST_S) -> bool:
        """Keep it from beginning anything new, on behalf of an operation; whether it was on (or
        this operation has paused it already). Raises `Conflict` when somebody changes its settings
        all the time."""
        if not self._is_sharded:
            return False
        record = await self.record()
        if record is not None and record["op_id"] != op_id:
            await self._put_back(record)
            record = None
        for _ in range(_TRIES):
            if record is None:
                before = await self._now()
                if before is not None and _is_off(before):
                    return False
                record = await self._note(op_id, before, at_most_s)
            if await self._swap(record["before"], record["written"]):
                return True
            if await self._now() == record["written"]:
                return True  # an earlier lead of this operation did it
            await self._forget(record)
            record = None
        raise Conflict(
            "the settings of the balancer are being changed by somebody else",
            hint="look at config.settings, and try again",
        )

    async def put_back(self, op_id: str) -> bool:
        """Undo what `pause` did for an operation; whether there was anything to undo."""
        record = await self.record()
        if record is None or record["op_id"] != op_id:
            return False
        return await self._put_back(record)

    async def tidy(self, active: Callable[[], Awaitable[set[str]]]) -> str | None:
        """Put it back where the operation that paused it is over, or took too long; answers that
        operation's id. `active` is asked after the record was read: an operation exists before it
        pauses anything."""
        record = await self.record()
        if record is None or (not record["is_overdue"] and record["op_id"] in await active()):
            return None
        await self._put_back(record)
        return str(record["op_id"])

    async def record(self) -> Document | None:
        """What we changed and not put back yet."""
        if not self._is_sharded:
            return None
        with translated("reading what was done to the balancer"):
            rows = self._records.aggregate(
                [
                    {"$match": {"_id": RECORD_ID}},
                    {"$set": {"is_overdue": {"$lte": ["$until", "$$NOW"]}}},
                ]
            )
            found: list[Document] = await rows.to_list(1)
        return found[0] if found else None

    async def _note(self, op_id: str, before: Document | None, at_most_s: float) -> Document:
        written = {**(before or {"_id": "balancer"}), "stopped": True}
        fields = {"op_id": op_id, "before": before, "written": written}
        exact = {name: literal(value) for name, value in fields.items()}
        until = {"$add": ["$$NOW", int(at_most_s * 1000)]}
        with translated("noting what is done to the balancer"):
            await self._records.update_one(
                {"_id": RECORD_ID},
                [{"$set": {**exact, "paused_at": "$$NOW", "until": until}}],
                upsert=True,
            )
        return fields

    async def _put_back(self, record: Document) -> bool:
        changed = await self._swap(record["written"], record["before"])
        await self._forget(record)
        return changed

    async def _forget(self, record: Document) -> None:
        with translated("forgetting what was done to the balancer"):
            await self._records.delete_one({"_id": RECORD_ID, "op_id": record["op_id"]})

    async def _now(self) -> Document | None:
        with translated("reading the settings of the balancer"):
            return await self._settings.find_one({"_id": "balancer"})

    async def _swap(self, before: Document | None, after: Document | None) -> bool:
        """Put one document in place of the other, field by field in their order; whether it was
        there."""
        exactly = {"_id": "balancer", "$expr": {"$eq": ["$$ROOT", literal(before)]}}
        with translated("switching the balancer"):
            if before is None:
                assert after is not None
                try:
                    await self._settings.insert_one(after)
                except DuplicateKeyError:
                    return False
                return True
            if after is None:
                return (await self._settings.delete_one(exactly)).deleted_count == 1
            return (await self._settings.replace_one(exactly, after)).matched_count == 1


def _is_off(setting: Document) -> bool:
    """As the server reads it: `stopped` wins over `mode`."""
    return bool(setting.get("stopped")) or setting.get("mode") == "off"
