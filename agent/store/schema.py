"""The control collections as they must be: made, indexed and seeded on first use.

Idempotent and safe to run by many at once. A schema that a newer version wrote is refused rather
than misread.
"""

from __future__ import annotations

import contextlib

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError, OperationFailure

from agent.errors import UnsupportedVersion
from agent.store.connection import Control, translated
from agent.wire.collections import (
    BACKUPS,
    CAPPED_BYTES,
    COMMANDS,
    CONFIG,
    OPERATIONS,
    RESTORES,
    SCHEMA_VERSION,
)

SCHEMA_ID = "schema"
_NAMESPACE_EXISTS = 48


async def ensure_schema(control: Control) -> None:
    """Make what is missing. Raises `UnsupportedVersion` for the schema of a newer version."""
    with translated("preparing the control collections"):
        if await _is_current(control):
            return
        for name in CAPPED_BYTES.keys() - await _capped(control):
            await _create_capped(control, name, CAPPED_BYTES[name])
        await _create_indexes(control)
        await control.loose(COMMANDS).insert_one({"op_id": None})  # an empty one cannot be tailed
        with contextlib.suppress(DuplicateKeyError):  # another agent was first
            await control.collection(CONFIG).update_one(
                {"_id": SCHEMA_ID},
                [{"$set": {"version": SCHEMA_VERSION, "created_at": "$$NOW"}}],
                upsert=True,
            )


async def _is_current(control: Control) -> bool:
    """Whether this version, or one that it can work with, has made everything already."""
    found = await control.collection(CONFIG).find_one({"_id": SCHEMA_ID})
    if found is None:
        return False
    if found["version"] > SCHEMA_VERSION:
        raise UnsupportedVersion(
            f"the control database has schema version {found['version']},"
            f" and this is Tidelog with schema version {SCHEMA_VERSION}",
            hint="upgrade this agent or ctl to the version that the other agents have",
        )
    # Somebody may have dropped a capped collection by hand: cheap to see, costly to miss.
    return bool(found["version"] == SCHEMA_VERSION) and await _capped(control) == set(CAPPED_BYTES)


async def _capped(control: Control) -> set[str]:
    cursor = await control.database.list_collections(filter={"name": {"$in": [*CAPPED_BYTES]}})
    return {row["name"] async for row in cursor if row["options"].get("capped")}


async def _create_capped(control: Control, name: str, size_bytes: int) -> None:
    try:
        await control.database.command({"create": name, "capped": True, "size": size_bytes})
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
        if name not in await _capped(control):
            # An insert was earlier than this and made a plain one; nobody can tail that.
            await control.database.command({"convertToCapped": name, "size": size_bytes})


async def _create_indexes(control: Control) -> None:
    operations = control.collection(OPERATIONS)
    await operations.create_index([("slot", ASCENDING)], name="slot", unique=True, sparse=True)
    await operations.create_index(
        [("kind", ASCENDING), ("name", ASCENDING)], name="kind_name", unique=True
    )
    await operations.create_index([("requested_at", ASCENDING)], name="requested_at")
    await operations.create_index([("state", ASCENDING)], name="state")
    await control.collection(BACKUPS).create_index([("last_write", ASCENDING)], name="last_write")
    await control.collection(RESTORES).create_index(
        [("requested_at", ASCENDING)], name="requested_at"
    )
