"""What each webhook was told: one small document a webhook, fenced by the sender's epoch."""

from __future__ import annotations

from typing import Final

from pymongo.errors import DuplicateKeyError

from agent.errors import LeaseLost
from agent.store.connection import Control, translated
from agent.wire.collections import CONFIG
from agent.wire.notices import Told

_PREFIX: Final = "webhook/"


class NoticeStore:
    """Read and write; the lists are bounded by what is still worth telling."""

    def __init__(self, control: Control) -> None:
        self._collection = control.collection(CONFIG)

    async def read(self, webhook: str, now: int) -> Told:
        """What a webhook was told; one never heard of is told nothing older than now."""
        with translated(f"reading what the webhook {webhook} was told"):
            found = await self._collection.find_one({"_id": _PREFIX + webhook})
        return Told(id=_PREFIX + webhook, since=now) if found is None else Told.from_document(found)

    async def save(self, told: Told) -> None:
        """Raises `LeaseLost` when a sender of a higher epoch has written."""
        with translated("noting what a webhook was told"):
            try:
                await self._collection.replace_one(
                    {"_id": told.id, "epoch": {"$lte": told.epoch}}, told.to_document(), upsert=True
                )
            except DuplicateKeyError:
                raise LeaseLost("somebody else sends notices now") from None
