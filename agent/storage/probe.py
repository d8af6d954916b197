"""The proof behind `verify`: one object is written, listed, read back and deleted."""

from __future__ import annotations

import secrets
from typing import Final

from agent.errors import IntegrityError, ObjectLocked, ObjectNotFound
from agent.storage.base import Storage, get_bytes, put_bytes

PROBE_PREFIX: Final = "probes/"
"""A probe that was killed leaves an object of a few bytes here; anyone may delete it."""


async def probe(storage: Storage) -> None:
    """Raise the first error that working with this storage would meet. That a lock keeps the probe
    is none: it does so with whatever is written there."""
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    data = b"tidelog probe " + secrets.token_bytes(16)
    await put_bytes(storage, key, data)
    try:
        listed = [found.key async for found in storage.list(key)]
        if listed != [key] and storage.capabilities.strong_list:
            raise IntegrityError(f"{storage.address} does not list {key!r}, which was just written")
        if await get_bytes(storage, key) != data:
            raise IntegrityError(f"{storage.address} returns other bytes for {key!r} than written")
    finally:
        is_locked = await _is_kept(storage, key)
    if is_locked:
        return
    try:
        await storage.stat(key)
    except ObjectNotFound:
        return
    raise IntegrityError(f"{storage.address} still has {key!r}, which was just deleted")


async def _is_kept(storage: Storage, key: str) -> bool:
    """Delete it; whether a lock refused that."""
    try:
        await storage.delete([key])
    except ObjectLocked:
        return True
    return False
