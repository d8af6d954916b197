"""Is a stored object what was written? Asked by restores before they begin, and by `ctl verify`."""

from __future__ import annotations

import hashlib
from typing import Protocol

from agent.archive.codec import in_thread
from agent.archive.objects import read_again_once
from agent.errors import IntegrityError, ObjectNotFound
from agent.storage.base import Storage


class Expected(Protocol):
    """What is known of an object from the manifest that names it."""

    @property
    def key(self) -> str:
        """Where it lies."""

    @property
    def size_bytes(self) -> int:
        """Its stored size."""

    @property
    def sha256(self) -> str:
        """Of the stored bytes."""


async def prove_present(storage: Storage, item: Expected) -> None:
    """It is there with its size. Raises `IntegrityError` naming it."""
    try:
        found = await storage.stat(item.key)
    except ObjectNotFound as error:
        raise IntegrityError(f"{item.key} is missing from {storage.address}") from error
    check_size(storage, item, found.size_bytes)


async def prove_read(storage: Storage, item: Expected) -> None:
    """Every byte of it is what was written. What was changed on the way only is read again, once.
    Raises `IntegrityError` naming it."""
    await read_again_once(item.key, lambda: _prove_read(storage, item))


async def _prove_read(storage: Storage, item: Expected) -> None:
    digest = hashlib.sha256()
    size = 0
    try:
        async with storage.get(item.key) as source:
            async for block in source:
                size += len(block)
                await in_thread(digest.update, block)
    except ObjectNotFound as error:
        raise IntegrityError(f"{item.key} is missing from {storage.address}") from error
    check_size(storage, item, size)
    if digest.hexdigest() != item.sha256:
        raise IntegrityError(
            f"{item.key} on {storage.address} is not what was written: its digest differs"
        )


def check_size(storage: Storage, item: Expected, size: int) -> None:
    """Raises `IntegrityError` for another size."""
    if size != item.size_bytes:
        raise IntegrityError(
            f"{item.key} on {storage.address} has {size} bytes and should have {item.size_bytes}"
        )
