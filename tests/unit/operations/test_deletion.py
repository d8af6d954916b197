"""Deleting a backup: cut short anywhere it can be taken up again, and takes nothing of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import pytest

from agent import faults
from agent.archive.layout import backup_key, backup_root
from agent.archive.manifest import ChunkObject
from agent.errors import IntegrityError, StorageUnavailable, TidelogError
from agent.operations.deletion import delete_backup
from agent.operations.inventory import inventory_of, referenced_by
from agent.storage.base import ObjectInfo, Storage, put_bytes
from agent.storage.memory import MemoryObjects, MemoryStorage
from tests.support.faulty_storage import FaultyStorage, Verb
from tests.unit.operations.repositories import (
    backup_document,
    keys_of,
    make_chunk,
    make_slice,
    publish,
    write_journal,
    write_manifest,
)


@dataclass
class _World:
    """`old` is to be deleted; `new` shares a chunk and a slice with it."""

    objects: MemoryObjects
    kept: dict[str, bytes]


async def _world() -> _World:
    storage = await MemoryStorage.open()
    shared = await make_chunk(storage, "op1", 0)
    sliced = await make_slice(storage, 10, 30)
    new = [shared, await make_chunk(storage, "op2", 0)]
    await publish(storage, "new", "op2", new, [sliced])
    kept = dict(storage.objects.bodies)
    await put_bytes(storage, "tidelog.json", b"{}")
    kept["tidelog.json"] = b"{}"
    own: list[ChunkObject] = [await make_chunk(storage, "op1", n) for n in range(1, 4)]
    late = await make_chunk(storage, "op1", 9)
    await write_journal(storage, "old", 1, 0, own[:2])
    await write_journal(storage, "old", 1, 1, [late], [await make_slice(storage, 5, 10)])
    await publish(storage, "old", "op1", [shared, *own], [sliced])
    return _World(storage.objects, kept)


async def test_everything_of_one_backup_goes_and_what_others_need_stays() -> None:
    world = await _world()
    storage = await MemoryStorage.open(world.objects)
    await delete_backup(storage, "old")
    assert world.objects.bodies == world.kept


async def test_the_last_backup_that_names_an_object_takes_it_along() -> None:
    world = await _world()
    storage = await MemoryStorage.open(world.objects)
    await delete_backup(storage, "new")
    await delete_backup(storage, "old")
    assert await keys_of(storage) == ["tidelog.json"]


async def test_the_backup_is_gone_for_everybody_before_its_first_object_is() -> None:
    world = await _world()
    faulty = FaultyStorage(await MemoryStorage.open(world.objects))
    before = len(world.objects.bodies)
    faulty.fail_after("delete", StorageUnavailable("the connection broke"), call=1)
    with pytest.raises(StorageUnavailable):
        await delete_backup(faulty, "old")
    assert backup_key("old") not in world.objects.bodies
    assert len(world.objects.bodies) == before - 1


async def _calls_of_a_deletion() -> list[tuple[Verb, int]]:
    faulty = FaultyStorage(await MemoryStorage.open((await _world()).objects))
    await delete_backup(faulty, "old")
    verbs: tuple[Verb, ...] = ("list", "get", "delete")
    return [(verb, call + 1) for verb in verbs for call in range(faulty.count(verb))]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_deletion_cut_short_at_any_call_is_taken_up_again(after: bool) -> None:
    calls = await _calls_of_a_deletion()
    assert {verb for verb, _ in calls} == {"list", "get", "delete"}
    for verb, call in calls:
        if after and verb != "delete":
            continue
        world = await _world()
        faulty = FaultyStorage(await MemoryStorage.open(world.objects))
        arm = faulty.fail_after if after else faulty.fail
        arm(verb, StorageUnavailable("the connection broke"), call=call)
        with pytest.raises(StorageUnavailable):
            await delete_backup(faulty, "old")
        faulty.heal()
        await delete_backup(faulty, "old")
        assert world.objects.bodies == world.kept, f"{verb} {call}"


class _HalfDeleting(FaultyStorage):
    """Deletes so many keys, then the process dies."""

    left: int = 0

    async def delete(self, keys: Iterable[str]) -> None:
        """One by one."""
        for key in keys:
            if not self.left:
                raise StorageUnavailable("died")
            self.left -= 1
            await self.inner.delete([key])


async def test_a_deletion_cut_short_after_any_object_is_taken_up_again() -> None:
    left = 0
    while True:
        world = await _world()
        storage = _HalfDeleting(await MemoryStorage.open(world.objects))
        storage.left = left
        try:
            await delete_backup(storage, "old")
            break
        except StorageUnavailable:
            storage.left = 1000
            await delete_backup(storage, "old")
        assert world.objects.bodies == world.kept, f"after {left} objects"
        left += 1
    assert left > 8


@pytest.mark.parametrize("action", ["transient", "permanent"])
async def test_a_deletion_that_fails_at_its_fault_point_is_taken_up_again(action: str) -> None:
    world = await _world()
    storage = await MemoryStorage.open(world.objects)
    faults.arm(f"delete.object_deleted={action}")
    try:
        with pytest.raises(TidelogError, match="fault injected"):
            await delete_backup(storage, "old")
    finally:
        faults.arm("")
    await delete_backup(storage, "old")
    assert world.objects.bodies == world.kept


async def test_deleting_again_what_is_gone_is_no_error() -> None:
    world = await _world()
    storage = await MemoryStorage.open(world.objects)
    await delete_backup(storage, "old")
    assert await delete_backup(storage, "old") == 0
    assert world.objects.bodies == world.kept


async def test_a_backup_that_never_was_published_is_cleared_away() -> None:
    storage = await MemoryStorage.open()
    finished = await make_chunk(storage, "op3", 0)
    await write_journal(storage, "dead", 1, 0, [finished], [await make_slice(storage, 1, 2)])
    await write_manifest(storage, "dead", "op3", [await make_chunk(storage, "op3", 1)], [])
    await delete_backup(storage, "dead")
    assert await keys_of(storage) == []


class _Deaf(FaultyStorage):
    """Says that it deleted, and did not."""

    async def delete(self, keys: Iterable[str]) -> None:
        """Nothing."""


async def test_what_is_still_listed_after_its_deletion_is_named() -> None:
    world = await _world()
    storage = _Deaf(await MemoryStorage.open(world.objects))
    with pytest.raises(StorageUnavailable, match=r"/op1-\S* is still listed"):
        await delete_backup(storage, "old")


async def _harm(storage: MemoryStorage, part: str, how: str) -> str:
    key = next(key for key in storage.objects.keys if part in key)
    if how == "missing":
        await storage.delete([key])
    else:
        body = bytearray(storage.objects.bodies[key])
        body[len(body) // 2] ^= 0xFF
        storage.objects.bodies[key] = bytes(body)
    return key


@pytest.mark.parametrize("how", ["missing", "harmed"])
async def test_while_a_kept_backup_cannot_say_what_it_needs_nothing_is_deleted(how: str) -> None:
    world = await _world()
    storage = await MemoryStorage.open(world.objects)
    key = await _harm(storage, "backups/new/rs0/manifest-", how)
    before = dict(world.objects.bodies)
    with pytest.raises(IntegrityError, match=key):
        await delete_backup(storage, "old")
    assert world.objects.bodies == before


@pytest.mark.parametrize("part", ["backups/old/rs0/manifest-", "backups/old/rs0/journal/"])
@pytest.mark.parametrize("how", ["missing", "harmed"])
async def test_a_harmed_backup_can_be_deleted(part: str, how: str) -> None:
    world = await _world()
    storage = await MemoryStorage.open(world.objects)
    key = await _harm(storage, part, how)
    found = await inventory_of(storage, "old")
    assert found.unreadable == ([key] if how == "harmed" else [])
    await delete_backup(storage, "old")
    assert await keys_of(storage, backup_root("old")) == []
    assert world.kept.items() <= world.objects.bodies.items()


class _Forgetting(FaultyStorage):
    """Journals of `new` are deleted by another agent as soon as they are listed."""

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """A listing that is out of date at once."""
        async for item in super().list(prefix, after=after):
            yield item
            if "new/rs0/journal" in item.key:
                await self.inner.delete([item.key])


async def test_a_journal_that_is_forgotten_meanwhile_stops_no_other_deletion() -> None:
    world = await _world()
    inner = await MemoryStorage.open(world.objects)
    await write_journal(inner, "new", 1, 0)
    await delete_backup(_Forgetting(inner), "old")
    assert world.objects.bodies == world.kept


async def test_references_are_those_of_the_published_manifest() -> None:
    storage: Storage = await MemoryStorage.open()
    stale = await make_chunk(storage, "op", 0, epoch=1)
    real = await make_chunk(storage, "op", 0, epoch=2)
    await write_manifest(storage, "b", "op", [stale], [], epoch=1)
    part = await write_manifest(storage, "b", "op", [real], [], epoch=2)
    text = backup_document("b", "op", part).model_dump_json(by_alias=True, exclude_none=True)
    await put_bytes(storage, backup_key("b"), text.encode())
    assert await referenced_by(storage, ["b", "unknown"]) == {real.key}
    assert (await inventory_of(storage, "b")).chunks == {stale.key, real.key}
