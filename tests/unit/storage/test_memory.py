"""What the driver in memory does beyond the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.errors import IntegrityError, StorageFull
from agent.storage.base import blocks, get_bytes, put_bytes
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.storage.probe import probe
from tests.support.faulty_storage import FaultyStorage

pytestmark = pytest.mark.unit


async def test_objects_outlive_the_storage() -> None:
    objects = MemoryObjects()
    first = await MemoryStorage.open(objects)
    await put_bytes(first, "key", b"body")
    await first.aclose()
    assert await get_bytes(await MemoryStorage.open(objects), "key") == b"body"


async def test_a_closed_storage_is_not_usable() -> None:
    storage = await MemoryStorage.open(name="x")
    await storage.aclose()
    with pytest.raises(RuntimeError, match="memory://x is closed"):
        await put_bytes(storage, "key", b"")
    with pytest.raises(RuntimeError):
        await storage.stat("key")
    with pytest.raises(RuntimeError):
        await anext(storage.list(""))
    with pytest.raises(RuntimeError):
        await storage.delete(["key"])


async def test_a_capacity_makes_it_full() -> None:
    objects = MemoryObjects(capacity_bytes=10)
    storage = await MemoryStorage.open(objects)
    await put_bytes(storage, "a", bytes(6))
    with pytest.raises(StorageFull, match="4 bytes free"):
        await put_bytes(storage, "b", bytes(5))
    await put_bytes(storage, "b", bytes(4))
    assert objects.used_bytes() == 10


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda faulty: faulty.drop_write(), "does not list"),
        (lambda faulty: faulty.duplicate_entries(), "does not list"),
        (lambda faulty: faulty.corrupt("get", 3), "other bytes"),
        (lambda faulty: faulty.corrupt("put", 3), "other bytes"),
        (lambda faulty: faulty.truncate("put", 3), "other bytes"),
        (lambda faulty: faulty.truncate("get", 3), "other bytes"),
        (lambda faulty: faulty.drop_delete(), "still has"),
    ],
)
async def test_verify_sees_through_a_storage_that_lies(
    fault: Callable[[FaultyStorage], None], message: str
) -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    fault(faulty)
    with pytest.raises(IntegrityError, match=message):
        await probe(faulty)


async def test_blocks_start_again() -> None:
    source = blocks(b"body")
    assert [block async for block in source] == [b"body"]
    assert [block async for block in source] == []
    again = source.again()  # type: ignore[attr-defined]
    assert [block async for block in again] == [b"body"]
