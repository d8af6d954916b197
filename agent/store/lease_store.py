"""Leases in the server's time.

Each is one document, seeded on first use, and each change is one conditional update of it by
`$$NOW` of the primary: no agent's clock takes part. `epoch` rises with each acquisition, so a
number never names two owners; whatever an owner writes elsewhere carries it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from agent.clock import Clock, SystemClock
from agent.errors import LeaseLost
from agent.store.connection import Control, translated
from agent.wire.collections import LEASES
from agent.wire.leases import TTL_S, Lease

_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_REMAINING: Final = {"$divide": [{"$subtract": ["$expires_at", "$$NOW"]}, 1000]}


def _until(ttl_s: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", int(ttl_s * 1000)]}


class LeaseStore:
    """Acquire, renew, release. Raises `StoreUnavailable` when the outcome is not known: a lease
    taken without our knowing lapses by itself."""

    def __init__(self, control: Control, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._collection = control.collection(LEASES)
        self._seeded: set[str] = set()

    async def acquire(self, scope: str, owner: str, ttl_s: float = TTL_S) -> Lease | None:
        """Take a lease that nobody holds, or `None`. A live one is refused to its own owner too:
        whoever asks again is another incarnation."""
        asked_at = self._clock.monotonic()
        with translated(f"acquiring the lease {scope}"):
            taken = await self._take(scope, owner, ttl_s)
            if taken is None and await self._seed(scope):
                taken = await self._take(scope, owner, ttl_s)
        if taken is None:
            return None
        return Lease.from_document({**taken, "remaining_s": ttl_s, "asked_at": asked_at})

    async def renew(self, lease: Lease, ttl_s: float = TTL_S) -> Lease:
        """Hold it on. Raises `LeaseLost` when owner and epoch no longer match."""
        with translated(f"renewing the lease {lease.id}"):
            document: dict[str, Any] | None = await self._collection.find_one_and_update(
                {"_id": lease.id, "owner": lease.owner, "epoch": lease.epoch},
                [{"$set": {"expires_at": _until(ttl_s)}}],
                return_document=ReturnDocument.AFTER,
            )
        if document is None:
            now = await self.read(lease.id)
            raise LeaseLost(
                f"the lease {lease.id} of epoch {lease.epoch} was taken over"
                + (f" by {now.owner} with epoch {now.epoch}" if now and now.owner else "")
            )
        return Lease.from_document({**document, "remaining_s": ttl_s})

    async def renew_all(self, leases: Iterable[Lease], ttl_s: float = TTL_S) -> bool:
        """Hold several on in one write; whether all still match owner and epoch. Those that do are
        held on in any case; `renew` tells of each one."""
        owned = [{"_id": one.id, "owner": one.owner, "epoch": one.epoch} for one in leases]
        with translated("renewing the leases"):
            done = await self._collection.update_many(
                {"$or": owned}, [{"$set": {"expires_at": _until(ttl_s)}}]
            )
        return done.matched_count == len(owned)

    async def release(self, lease: Lease) -> None:
        """Give it back, if it is still ours."""
        with translated(f"releasing the lease {lease.id}"):
            await self._collection.update_one(
                {"_id": lease.id, "owner": lease.owner, "epoch": lease.epoch},
                [{"$set": {"owner": None, "expires_at": "$$NOW"}}],
            )

    async def read(self, scope: str) -> Lease | None:
        """One lease, held or not."""
        with translated(f"reading the lease {scope}"):
            rows = self._collection.aggregate(
                [{"$match": {"_id": scope}}, {"$set": {"remaining_s": _REMAINING}}]
            )
            return next((Lease.from_document(row) for row in await rows.to_list(1)), None)

    async def held(self) -> dict[str, Lease]:
        """All leases that somebody holds now, by scope, in one query."""
        with translated("reading the leases"):
            rows = self._collection.aggregate(
                [
                    {"$match": {"owner": {"$ne": None}}},
                    {"$set": {"remaining_s": _REMAINING}},
                    {"$match": {"remaining_s": {"$gt": 0}}},
                ]
            )
            return {row["_id"]: Lease.from_document(row) for row in await rows.to_list(None)}

    async def _take(self, scope: str, owner: str, ttl_s: float) -> dict[str, Any] | None:
        free = {"$or": [{"$eq": ["$owner", None]}, {"$lte": ["$expires_at", "$$NOW"]}]}
        change = {
            "owner": {"$literal": owner},
            "epoch": {"$add": ["$epoch", 1]},
            "expires_at": _until(ttl_s),
        }
        return await self._collection.find_one_and_update(
            {"_id": scope, "$expr": free},
            [{"$set": change}],
            return_document=ReturnDocument.AFTER,
        )

    async def _seed(self, scope: str) -> bool:
        """Make the document of a new scope; whether it was worth trying again. (`$expr` is not
        allowed in the predicate of an upsert, so taking cannot seed.)"""
        if scope in self._seeded:
            return False
        self._seeded.add(scope)
        try:
            done = await self._collection.update_one(
                {"_id": scope},
                {"$setOnInsert": {"owner": None, "epoch": 0, "expires_at": _LONG_AGO}},
                upsert=True,
            )
        except DuplicateKeyError:
            return True
        return done.upserted_id is not None
