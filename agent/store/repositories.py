"""Which repository each profile leads to: one document, written by whichever agent looked."""

from __future__ import annotations

from agent.store.connection import Control, translated
from agent.store.operation_updates import literal
from agent.wire.collections import CONFIG
from agent.wire.repositories import Found, Repositories

REPOSITORIES_ID = "repositories"


class RepositoryStore:
    """Bounded by the number of profiles that ever were."""

    def __init__(self, control: Control) -> None:
        self._collection = control.collection(CONFIG)

    async def read(self) -> Repositories:
        """All that is known."""
        with translated("reading what is known of the repositories"):
            document = await self._collection.find_one({"_id": REPOSITORIES_ID})
        return Repositories() if document is None else Repositories.from_document(document)

    async def note(self, found: Found) -> None:
        """Remember what one agent found; writes nothing where the same is known."""
        known = (await self.read()).found.get(found.profile)
        ignored = {"at": None, "by_node": ""}
        if known is not None and known.model_copy(update=ignored) == found.model_copy(
            update=ignored
        ):
            return
        document = {k: literal(v) for k, v in found.to_document().items() if k != "at"}
        change = {"$set": {f"found.{found.profile}": {**document, "at": "$$NOW"}}}
        with translated("noting what a profile leads to"):
            # Two steps: `$set` merges sub-documents, and what is no longer so must go.
            await self._collection.update_one(
                {"_id": REPOSITORIES_ID},
                [{"$unset": f"found.{found.profile}"}, change],
                upsert=True,
            )
