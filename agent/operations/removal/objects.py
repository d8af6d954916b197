"""Deleting objects in batches, and looking whether they are gone: the answers of delete calls are
not believed. What is still listed is asked for by itself, since a list may be behind."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

from agent.errors import ObjectNotFound, StorageUnavailable
from agent.faults import fault_point
from agent.storage.base import Storage

BATCH: Final = 500


async def delete_keys(
    storage: Storage, keys: Sequence[str], *, check: Callable[[], None] | None = None
) -> None:
    """In the order given. `check` raises where this agent must not act any more."""
    for start in range(0, len(keys), BATCH):
        if check is not None:
            check()
        await storage.delete(keys[start : start + BATCH])
        await fault_point("delete.object_deleted")


async def prove_gone(storage: Storage, keys: Iterable[str]) -> None:
    """Raises `StorageUnavailable` naming one that is still there."""
    by_place: dict[str, set[str]] = {}
    for key in keys:
        by_place.setdefault(_place_of(key), set()).add(key)
    for place, wanted in by_place.items():
        await prove_empty(storage, place, wanted)


async def prove_empty(storage: Storage, prefix: str, keys: Container[str] | None = None) -> None:
    """Nothing (or none of these) is there any more. Raises `StorageUnavailable` naming one that
    is both listed and found."""
    async for item in storage.list(prefix):
        if keys is not None and item.key not in keys:
            continue
        try:
            await storage.stat(item.key)
        except ObjectNotFound:
            continue
        raise StorageUnavailable(f"{item.key} is still listed after it was deleted")


def _place_of(key: str) -> str:
    """A prefix with few other keys: of a chunk those that the same operation wrote there, of a
    slice its day."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name.partition('-')[0]}" if key.startswith("chunks/") else f"{folder}/"
