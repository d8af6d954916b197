"""Deleting objects in batches, and looking whether they are gone: the answers of delete calls are
not believed, listings are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from agent.errors import StorageUnavailable
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
    """Raises `StorageUnavailable` naming one that is still listed."""
    by_place: dict[str, set[str]] = {}
    for key in keys:
        by_place.setdefault(_place_of(key), set()).add(key)
    for place, wanted in by_place.items():
        async for item in storage.list(place):
            if item.key in wanted:
                raise StorageUnavailable(f"{item.key} is still listed after it was deleted")


def _place_of(key: str) -> str:
    """A prefix with few other keys: of a chunk those that the same operation wrote there, of a
    slice its day."""
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name.partition('-')[0]}" if key.startswith("chunks/") else f"{folder}/"
