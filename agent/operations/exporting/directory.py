"""A `mongodump` directory: `<database>/<collection>.bson` and `<collection>.metadata.json`.

The layout is that of the server's own tools (docs of mongodump, and what it writes): a view has
metadata only; a time series has its metadata under its own name and its documents under
`system.buckets.<name>`; users and roles are `admin/system.users` and `admin/system.roles`, with the
version of their form in `admin/system.version`. Names are percent-encoded in file names.

It is written beside its place and moved there at the end, so a directory that is there is complete.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

import bson

from agent.errors import ConfigError, Refused
from agent.mongo.dumping import (
    canonical_json,
    databases,
    listed_collections,
    listed_indexes,
    raw_documents,
)
from agent.mongo.node import Node
from agent.operations.exporting.shares import Share
from agent.wire.namespaces import is_archived

PARTIAL: Final = ".tidelog-export-"
_BUCKETS: Final = "system.buckets."
_LONGEST: Final = 238
_KEPT: Final = 208
_AUTH_SCHEMA: Final = {"_id": "authSchema", "currentVersion": 5}
_VERSION: Final = "system.version"
_EXPORTED_SYSTEM: Final = frozenset({"system.users", "system.roles", "system.js"})


@dataclass(slots=True)
class Written:
    """What was written."""

    collections: int = 0
    bytes: int = 0


def file_name(collection: str) -> str:
    """A collection's name as the tools write it in a file name."""
    escaped = quote(collection, safe="-_.~$&+=@")
    if len(escaped) <= _LONGEST:
        return escaped
    digest = hashlib.sha1(collection.encode(), usedforsecurity=False).digest()
    return escaped[:_KEPT] + "%24" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def checked_target(root: Path | None, wanted: str) -> Path:
    """Where to write: below what this host allows. Raises `ConfigError`, `Refused`."""
    if root is None:
        raise ConfigError(
            "no agent has export.directory: an agent writes the export, on its own host, and only"
            " below that directory",
            hint="set TIDELOG_EXPORT__DIRECTORY for one of them, and start it anew",
        )
    allowed = root.resolve()
    target = (allowed / wanted).resolve()
    if not target.is_relative_to(allowed) or target == allowed:
        raise Refused(
            f"{wanted} is not below {allowed}, where this agent may write exports",
            hint=f"give a name, for a directory in {allowed} on the agent's host",
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Refused(f"{target} exists on the agent's host and is not empty", hint="name another")
    return target


@asynccontextmanager
async def placed(target: Path, op_id: str) -> AsyncIterator[Path]:
    """A directory to write to, which takes its place when the body ends well and is removed
    otherwise. Raises `Refused`."""
    partial = target.parent / f"{PARTIAL}{op_id}"
    await asyncio.to_thread(_fresh, partial)
    try:
        yield partial
        await asyncio.to_thread(_moved, partial, target)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True))


def _fresh(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)


def _moved(partial: Path, target: Path) -> None:
    """Takes the place of an empty directory too."""
    with suppress(FileNotFoundError):
        target.rmdir()
    partial.rename(target)


async def dump(
    node: Node, share: Share, directory: Path, written: Written, on_bytes: Callable[[int], None]
) -> None:
    """Write what the server has to give, behind what others gave, and tell how many bytes more were
    written now and then. Raises `NodeUnavailable` and what the disk says."""
    for database in await databases(node):
        listed = await listed_collections(node, database)
        for entry in sorted(listed, key=lambda entry: str(entry["name"])):
            name = str(entry["name"])
            is_bucket = name.startswith(_BUCKETS)
            if not _is_wanted(database, name) or not share.holds(database, name):
                continue
            path = directory / database
            await asyncio.to_thread(path.mkdir, exist_ok=True)
            if not is_bucket and share.describes(database, name):
                written.collections += 1
                indexes = (
                    [] if entry["type"] == "view" else await listed_indexes(node, database, name)
                )
                text = canonical_json(_metadata(entry, indexes))
                metadata = path / f"{file_name(name)}.metadata.json"
                await asyncio.to_thread(metadata.write_text, text, "utf-8")
            if entry["type"] == "collection":
                where = path / f"{file_name(name)}.bson"
                written.bytes += await _documents(node, database, name, where, on_bytes)
    await asyncio.to_thread(_auth_schema, directory)


def _is_wanted(database: str, name: str) -> bool:
    if not is_archived(f"{database}.{name}"):
        return False
    if name.startswith("system."):
        return name.startswith(_BUCKETS) or name in _EXPORTED_SYSTEM
    return True


def _metadata(entry: dict[str, Any], indexes: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"indexes": indexes}
    if "uuid" in entry["info"]:
        found["uuid"] = bytes(entry["info"]["uuid"]).hex()
    found |= {"collectionName": entry["name"], "type": entry["type"]}
    return {"options": entry.get("options", {}), **found}


async def _documents(
    node: Node, database: str, name: str, path: Path, on_bytes: Callable[[int], None]
) -> int:
    size = 0
    file: IO[bytes] = await asyncio.to_thread(path.open, "ab")
    try:
        async with aclosing(raw_documents(node, database, name)) as blocks:
            async for block in blocks:
                size += len(block)
                await asyncio.to_thread(file.write, block)
                on_bytes(len(block))
        await asyncio.to_thread(_durable, file)
    finally:
        file.close()
    return size


def _durable(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _auth_schema(directory: Path) -> None:
    """Without it mongorestore does not know the form of the users."""
    admin = directory / "admin"
    if not (admin / "system.users.bson").exists():
        return
    (admin / f"{_VERSION}.bson").write_bytes(bson.encode(_AUTH_SCHEMA))
    metadata = {"options": {}, "indexes": [], "collectionName": _VERSION, "type": "collection"}
    (admin / f"{_VERSION}.metadata.json").write_text(canonical_json(metadata))
