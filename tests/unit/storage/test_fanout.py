"""Several storages as one: all get everything, and one that fails is left out, not the backup."""

from __future__ import annotations

import pytest

from agent.errors import ObjectExists, PermissionDenied, StorageUnavailable, TidelogError
from agent.storage.base import get_bytes, put_bytes
from agent.storage.fanout import FanOut
from agent.storage.memory import MemoryStorage
from agent.storage.routed import Routed
from tests.support.faulty_storage import FaultyStorage


class _Two:
    """Two storages as one, and what was lost."""

    def __init__(self) -> None:
        self.lost: dict[str, TidelogError] = {}

    async def open(self) -> FanOut:
        self.first = FaultyStorage(await MemoryStorage.open(name="first"))
        self.second = FaultyStorage(await MemoryStorage.open(name="second"))
        return FanOut({"first": self.first, "second": self.second}, self._on_loss)

    async def _on_loss(self, name: str, error: TidelogError) -> None:
        self.lost[name] = error


async def _keys(storage: FaultyStorage) -> list[str]:
    return [item.key async for item in storage.list("")]


async def test_each_storage_gets_the_same_bytes() -> None:
    two = _Two()
    both = await two.open()
    assert (await put_bytes(both, "a/b", b"body")).size_bytes == 4
    assert await get_bytes(two.first, "a/b") == await get_bytes(two.second, "a/b") == b"body"
    await both.delete(["a/b"])
    assert await _keys(two.first) == await _keys(two.second) == []


@pytest.mark.parametrize("broken", ["first", "second"])
async def test_one_that_fails_is_left_out_from_then_on(broken: str) -> None:
    two = _Two()
    both = await two.open()
    bad, good = (two.first, two.second) if broken == "first" else (two.second, two.first)
    bad.fail("put", PermissionDenied("no"), call=1)
    await put_bytes(both, "a", b"1")
    assert list(two.lost) == [broken]
    await put_bytes(both, "b", b"2")
    assert await _keys(good) == ["a", "b"]
    assert await _keys(bad) == []
    assert await get_bytes(both, "b") == b"2", "read from the one that is left"


async def test_the_last_one_is_never_left_out() -> None:
    two = _Two()
    both = await two.open()
    for storage in (two.first, two.second):
        storage.fail("put", StorageUnavailable("away"), call=1)
    with pytest.raises(StorageUnavailable):
        await put_bytes(both, "a", b"1")
    assert two.lost == {}
    await put_bytes(both, "a", b"1")
    assert await _keys(two.first) == await _keys(two.second) == ["a"]


async def test_a_key_that_is_taken_is_no_fault_of_a_storage() -> None:
    two = _Two()
    both = await two.open()
    await put_bytes(two.second, "a", b"1")
    with pytest.raises(ObjectExists):
        await put_bytes(both, "a", b"2")
    assert two.lost == {}


async def test_what_only_one_of_them_has_is_copied_to_the_other() -> None:
    two = _Two()
    both = await two.open()
    await put_bytes(two.first, "j/1", b"1")
    await put_bytes(two.second, "j/2", b"2")
    await put_bytes(two.second, "other", b"3")
    await both.level("j/")
    assert await _keys(two.first) == ["j/1", "j/2"]
    assert await _keys(two.second) == ["j/1", "j/2", "other"]
    assert await get_bytes(two.first, "j/2") == b"2"


async def test_chosen_keys_are_read_elsewhere_and_written_nowhere_else() -> None:
    base, main = await MemoryStorage.open(), await MemoryStorage.open()
    await put_bytes(base, "slice", b"of the backup")
    await put_bytes(main, "slice", b"of main")
    routed = Routed(base, main, ["slice"])
    assert await get_bytes(routed, "slice") == b"of main"
    await put_bytes(routed, "state", b"1")
    assert [item.key async for item in main.list("")] == ["slice"]
    assert [item.key async for item in routed.list("")] == ["slice", "state"]
