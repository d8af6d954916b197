"""The cluster-wide settings: one document with a version that rises on each change."""

from __future__ import annotations

import secrets

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from agent.errors import Conflict
from agent.store.command_queue import CommandQueue
from agent.store.connection import Control, translated
from agent.wire.collections import CONFIG
from agent.wire.sealing import storable
from agent.wire.settings import Settings

SETTINGS_ID = "settings"


class SettingsStore:
    """Read and replace. Version 0 means that nothing was ever set."""

    def __init__(self, control: Control, commands: CommandQueue | None = None) -> None:
        self._collection = control.collection(CONFIG)
        self._commands = commands or CommandQueue(control)

    async def read(self) -> tuple[Settings, int]:
        """The settings and their version."""
        with translated("reading the settings"):
            document = await self._collection.find_one({"_id": SETTINGS_ID})
        if document is None:
            return Settings(), 0
        return Settings.from_document(document["settings"]), int(document["version"])

    async def replace(self, settings: Settings, version: int) -> int:
        """Put new settings in place of those of `version`; answers the new version. Raises
        `Conflict` when somebody else was first, and `ConfigError` for a secret in clear."""
        storable(settings, None, secrets.token_bytes)
        change = {
            "settings": {"$literal": settings.to_document()},
            "version": {"$literal": version + 1},
            "updated_at": "$$NOW",
        }
        with translated("writing the settings"):
            try:
                document = await self._collection.find_one_and_update(
                    {"_id": SETTINGS_ID, "version": version},
                    [{"$set": change}],
                    upsert=version == 0,
                    return_document=ReturnDocument.AFTER,
                )
            except DuplicateKeyError:
                document = None
        if document is None:
            raise Conflict(
                "the settings were changed by somebody else meanwhile",
                hint="look at them and try again",
            )
        await self._commands.wake()
        return version + 1
