"""The catalogue: published backups and the record of restores.

A cache of what storage holds, so that `ctl` need not reach it; resync rebuilds it. Documents are
bounded: the lists of collections and chunks live on storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo.errors import DuplicateKeyError

from agent.errors import Conflict, NotFound
from agent.store.connection import Control, translated
from agent.wire.backups import Backup, Copy
from agent.wire.collections import BACKUPS, RESTORES
from agent.wire.verdicts import Level, Verdict

Document = dict[str, Any]


class Catalog:
    """Backups and restores, by name."""

    def __init__(self, control: Control) -> None:
        self._backups = control.collection(BACKUPS)
        self._restores = control.collection(RESTORES)

    async def publish_backup(self, backup: Backup) -> None:
        """Make a backup visible. Idempotent: the same backup again only adds the copies that are
        not known yet; another one of that name raises `Conflict`."""
        with translated(f"publishing the backup {backup.id}"):
            try:
                await self._backups.insert_one(backup.to_document())
            except DuplicateKeyError:
                found = await self._backups.find_one({"_id": backup.id})
                if found is None:
                    return
                known = Backup.from_document(found)
                if known.op_id != backup.op_id:
                    raise Conflict(f"there is another backup named {backup.id}", hint="") from None
                ids = {copy.repository_id for copy in known.places}
                more = [copy for copy in backup.places if copy.repository_id not in ids]
                if more:
                    await self._set_copies(backup.id, (*known.places, *more))

    async def backup(self, name: str) -> Backup:
        """One backup. Raises `NotFound`."""
        with translated(f"reading the backup {name}"):
            found: Document | None = await self._backups.find_one({"_id": name})
        if found is None:
            raise NotFound(f"there is no backup {name}", hint="'ctl list' shows the backups")
        return Backup.from_document(found)

    async def backups(self) -> list[Backup]:
        """All backups, the oldest first."""
        with translated("reading the backups"):
            rows = await self._backups.find().sort([("last_write", 1), ("_id", 1)]).to_list(None)
        return [Backup.from_document(row) for row in rows]

    async def hold_backup(self, name: str, hold: str | None) -> None:
        """Note why a backup must not be deleted, or that it may be again."""
        change = {"$unset": {"hold": ""}} if hold is None else {"$set": {"hold": hold}}
        with translated(f"noting the hold of the backup {name}"):
            await self._backups.update_one({"_id": name}, change)

    async def withdraw_backup(self, name: str) -> bool:
        """Make a backup invisible, before its objects go; whether it was there."""
        with translated(f"withdrawing the backup {name}"):
            return (await self._backups.delete_one({"_id": name})).deleted_count == 1

    async def withdraw_copy(self, name: str, repository_id: str) -> None:
        """Make one copy of a backup invisible, and the backup with its last one."""
        with translated(f"withdrawing a copy of the backup {name}"):
            found = await self._backups.find_one({"_id": name})
            if found is None:
                return
            known = Backup.from_document(found).places
            left = [copy for copy in known if copy.repository_id != repository_id]
            if left:
                await self._set_copies(name, left)
            else:
                await self._backups.delete_one({"_id": name})

    async def _set_copies(self, name: str, copies: Sequence[Copy]) -> None:
        first = copies[0]
        change = {
            "copies": [copy.to_document() for copy in copies],
            "profile": first.profile,
            "repository_id": first.repository_id,
        }
        await self._backups.update_one({"_id": name}, {"$set": change})

    async def record_verdict(self, name: str, verdict: Verdict) -> None:
        """Put what a verification found beside the backup, with the server's time."""
        found = {**verdict.to_document(), "at": "$$NOW"}
        literal = {k: v if k == "at" else {"$literal": v} for k, v in found.items()}
        with translated(f"recording the verdict on the backup {name}"):
            fields = {"verdict": literal}
            if verdict.level is Level.PROVED and verdict.is_sound:
                fields["proof"] = literal
            # First taken away: `$set` would merge it with the verdict before.
            stages: list[Document] = [{"$unset": sorted(fields)}, {"$set": fields}]
            await self._backups.update_one({"_id": name}, stages)

    async def save_restore(self, document: Document) -> None:
        """Record a restore under its `_id`, in place of what was recorded of it before."""
        with translated(f"recording the restore {document['_id']}"):
            await self._restores.replace_one({"_id": document["_id"]}, document, upsert=True)

    async def restores(self) -> list[Document]:
        """All recorded restores, the oldest first."""
        with translated("reading the restores"):
            return await self._restores.find().sort("_id", 1).to_list(None)

    async def restore(self, name: str) -> Document:
        """One recorded restore. Raises `NotFound`."""
        with translated(f"reading the restore {name}"):
            found: Document | None = await self._restores.find_one({"_id": name})
        if found is None:
            raise NotFound(f"there is no restore {name}", hint="'ctl list --restore' shows them")
        return found
