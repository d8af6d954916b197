"""Every sentence of `agent.storage.base`, on every driver, alone and in wrappers."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agent.errors import IntegrityError, ObjectExists, ObjectNotFound
from agent.storage.base import ObjectInfo, Storage, blocks, get_bytes, put_bytes
from agent.storage.keys import InvalidKey
from agent.storage.retrying import put_object
from tests.contract.storage_drivers import DRIVERS, Place

pytestmark = pytest.mark.contract

MIB = 1024 * 1024


@pytest.fixture(params=DRIVERS)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    async with DRIVERS[request.param](tmp_path) as place:
        yield place


@pytest.fixture
async def storage(place: Place) -> AsyncIterator[Storage]:
    storage = await place.open()
    yield storage
    await storage.aclose()


async def source(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def failing_source(good: int) -> AsyncIterator[bytes]:
    for _ in range(good):
        yield bytes(MIB)
    raise LookupError("the source broke")


async def listed(storage: Storage, prefix: str = "", after: str | None = None) -> list[str]:
    return [found.key async for found in storage.list(prefix, after=after)]


async def read(storage: Storage, key: str, offset: int = 0, length: int | None = None) -> bytes:
    async with storage.get(key, offset=offset, length=length) as stream:
        return b"".join([block async for block in stream])


async def assert_nothing_is_left(place: Place, storage: Storage, key: str) -> None:
    with pytest.raises(ObjectNotFound):
        await storage.stat(key)
    assert await listed(storage) == []
    assert await place.leftovers() == []


# put


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (b"",),
        (b"x",),
        (b"", b"ab", b"", b"c"),
        (bytes(range(256)) * 5000,),
        (b"y" * MIB, b"z" * (MIB + 1), b"!"),
        tuple(b"%d," % number for number in range(5000)),
    ],
    ids=["none", "empty", "byte", "gaps", "1.2MiB", "2MiB+2", "5000 small"],
)
async def test_put_stores_the_concatenated_blocks(
    storage: Storage, parts: tuple[bytes, ...]
) -> None:
    body = b"".join(parts)
    assert await storage.put("d/key", source(*parts)) == ObjectInfo("d/key", len(body))
    assert await get_bytes(storage, "d/key") == body
    assert await storage.stat("d/key") == ObjectInfo("d/key", len(body))


@pytest.mark.parametrize("size_hint", [0, 3, 10**12])
async def test_a_size_hint_is_only_a_hint(storage: Storage, size_hint: int) -> None:
    await storage.put("key", source(b"abc", b"de"), size_hint=size_hint)
    assert await get_bytes(storage, "key") == b"abcde"


async def test_what_put_returned_is_there_for_other_clients(place: Place, storage: Storage) -> None:
    await put_bytes(storage, "a/b", b"body")
    other = await place.open()
    assert await get_bytes(other, "a/b") == b"body"
    await other.aclose()


async def test_the_key_is_absent_while_put_runs(place: Place, storage: Storage) -> None:
    seen: list[object] = []

    async def looking() -> AsyncIterator[bytes]:
        yield bytes(3 * MIB)
        seen.append(await listed(storage))
        with pytest.raises(ObjectNotFound):
            await storage.stat("a/key")
        with pytest.raises(ObjectNotFound):
            await get_bytes(storage, "a/key")
        yield b"end"

    await storage.put("a/key", looking())
    assert seen == [[]]
    assert await listed(storage) == ["a/key"]
    assert await place.leftovers() == []


@pytest.mark.parametrize("good", [0, 1, 9])
async def test_a_put_whose_source_fails_leaves_nothing(
    place: Place, storage: Storage, good: int
) -> None:
    with pytest.raises(LookupError, match="the source broke"):
        await storage.put("a/b/key", failing_source(good))
    await assert_nothing_is_left(place, storage, "a/b/key")


async def test_a_failed_put_can_be_repeated(storage: Storage) -> None:
    with pytest.raises(LookupError):
        await storage.put("key", failing_source(2))
    await put_bytes(storage, "key", b"second")
    assert await get_bytes(storage, "key") == b"second"


async def test_a_put_cancelled_in_the_middle_leaves_nothing(place: Place, storage: Storage) -> None:
    reached = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield bytes(9 * MIB)
        yield bytes(9 * MIB)
        reached.set()
        await asyncio.sleep(3600)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(storage.put("a/b/key", stalling()))
        await reached.wait()
        task.cancel()
    assert task.cancelled()
    await assert_nothing_is_left(place, storage, "a/b/key")


async def test_a_put_cancelled_anywhere_is_whole_or_leaves_nothing(
    place: Place, storage: Storage
) -> None:
    """120 times, twelve at once: an abort may wait for a request that is still on its way."""
    rng = random.Random(8)
    body = rng.randbytes(2 * MIB)
    cancelled: list[str] = []
    stored: list[str] = []

    async def put_and_cancel(turn: int) -> None:
        key = f"t{turn}/key"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(storage.put(key, source(body[:MIB], body[MIB:])))
            for _ in range(turn % 12):
                await asyncio.sleep(0)
            if turn % 3:
                await asyncio.sleep(rng.uniform(0, 0.012))
            task.cancel()
        (cancelled if task.cancelled() else stored).append(key)

    for first in range(0, 120, 12):
        async with asyncio.TaskGroup() as group:
            for turn in range(first, first + 12):
                group.create_task(put_and_cancel(turn))
        assert await listed(storage) == sorted(stored)
        for key in stored:
            assert await get_bytes(storage, key) == body
        await storage.delete(stored)
        stored.clear()
        for key in cancelled[-12:]:
            await assert_nothing_is_left(place, storage, key)
    assert cancelled


async def test_a_put_cancelled_before_its_first_step_leaves_nothing(
    place: Place, storage: Storage
) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(put_bytes(storage, "a/key", b"body"))
        task.cancel()
    await assert_nothing_is_left(place, storage, "a/key")


# Write once


async def test_put_of_a_taken_key_is_refused_and_changes_nothing(storage: Storage) -> None:
    if not storage.capabilities.conditional_put:
        pytest.skip("no conditional_put")
    await put_bytes(storage, "a/key", b"first")
    with pytest.raises(ObjectExists, match="a/key"):
        await put_bytes(storage, "a/key", b"other")
    with pytest.raises(ObjectExists):
        await storage.put("a/key", source(bytes(5 * MIB), bytes(5 * MIB)))
    assert await get_bytes(storage, "a/key") == b"first"


async def test_of_concurrent_puts_of_one_key_exactly_one_wins(
    place: Place, storage: Storage
) -> None:
    if not storage.capabilities.conditional_put:
        pytest.skip("no conditional_put")
    won: list[int] = []
    async with AsyncExitStack() as stack:
        clients = [storage, await place.open()]
        stack.push_async_callback(clients[1].aclose)

        async def race(number: int) -> None:
            try:
                await clients[number % 2].put("a/key", source(*[bytes([number])] * 3, bytes(MIB)))
                won.append(number)
            except ObjectExists:
                pass

        async with asyncio.TaskGroup() as group:
            for number in range(1, 9):
                group.create_task(race(number))
    (winner,) = won
    assert await get_bytes(storage, "a/key") == bytes([winner]) * 3 + bytes(MIB)
    assert await listed(storage) == ["a/key"]
    assert await place.leftovers() == []


async def test_a_key_is_free_again_after_delete(storage: Storage) -> None:
    await put_bytes(storage, "a/key", b"first")
    await storage.delete(["a/key"])
    await put_bytes(storage, "a/key", b"second")
    assert await get_bytes(storage, "a/key") == b"second"


async def test_no_key_is_the_directory_of_another(place: Place, storage: Storage) -> None:
    if not place.refuses_nested_keys:
        pytest.skip("this storage cannot tell")
    await put_bytes(storage, "a/b", b"body")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(ObjectExists):
            await put_bytes(storage, key, b"other")
    assert await listed(storage) == ["a/b"]


# Keys

KEYS = [
    "plain",
    "with space",
    "dots.and-dashes_.~!@#$%^&*()+=[]{};'\",<>?|\\",
    "ünïcødé/ключ/鍵/🗝",
    "e\u0301/combining beside \u00e9",
    "-starts-with-dash",
    "percent%2Fencoded%00",
    "a:b/c:d",
    "..a/b../...",
    ".hidden/key",
    "trailing /space ",
    "x" * 255,
    "deep/" * 30 + "key",
]


async def test_keys_of_all_kinds_come_back_as_they_are(place: Place, storage: Storage) -> None:
    keys = [key for key in KEYS if place.keeps_backslashes or "\\" not in key]
    for key in keys:
        await put_bytes(storage, key, key.encode())
    assert await listed(storage) == sorted(keys, key=str.encode)
    for key in keys:
        assert await get_bytes(storage, key) == key.encode()
        assert (await storage.stat(key)).key == key
        assert await listed(storage, key) == [key]
    await storage.delete(keys)
    assert await listed(storage) == []


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/absolute",
        "trailing/",
        "empty//part",
        ".",
        "..",
        "a/../b",
        "a/./b",
        "../../etc/passwd",
        ".tmp-1",
        "a/.tmp-x/b",
        "lost+found",
        "nul\0",
        "new\nline",
        "lone \ud800 surrogate",
        "no character \uffff",
        "x" * 256,
        "é" * 128,
        "long/" * 200,
    ],
)
async def test_impossible_keys_are_refused_by_every_verb(storage: Storage, key: str) -> None:
    with pytest.raises(InvalidKey):
        await put_bytes(storage, key, b"")
    with pytest.raises(InvalidKey):
        await get_bytes(storage, key)
    with pytest.raises(InvalidKey):
        await storage.stat(key)
    with pytest.raises(InvalidKey):
        await storage.delete(["fine", key])


@pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../b", "lost+found/", "\ud800", "a\0"])
async def test_impossible_prefixes_are_refused(storage: Storage, prefix: str) -> None:
    with pytest.raises(InvalidKey):
        await listed(storage, prefix)


# get


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None),
        (0, 0),
        (0, 1),
        (1, 1),
        (MIB - 1, 2),
        (MIB, MIB),
        (5, 2 * MIB + 7),
        (3 * MIB + 9, 1),
        (3 * MIB + 10, 0),
        (3 * MIB + 10, None),
        (2 * MIB, None),
        (0, 3 * MIB + 10),
    ],
)
async def test_get_returns_exactly_the_range(
    storage: Storage, offset: int, length: int | None
) -> None:
    body = random.Random(1).randbytes(3 * MIB + 10)
    await put_bytes(storage, "key", body)
    end = None if length is None else offset + length
    assert await read(storage, "key", offset, length) == body[offset:end]


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (11, None), (11, 0), (10, 1), (5, 6)])
async def test_a_range_past_the_end_raises(
    storage: Storage, offset: int, length: int | None
) -> None:
    await put_bytes(storage, "some/key", b"0123456789")
    with pytest.raises(IntegrityError, match="some/key"):
        await read(storage, "some/key", offset, length)


@pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1)])
async def test_a_negative_range_is_a_mistake(
    storage: Storage, offset: int, length: int | None
) -> None:
    await put_bytes(storage, "key", b"0123456789")
    with pytest.raises(ValueError, match="key"):
        await read(storage, "key", offset, length)


async def test_get_yields_blocks_of_at_most_1_mib(storage: Storage) -> None:
    await put_bytes(storage, "key", bytes(3 * MIB + 1))
    async with storage.get("key") as stream:
        sizes = [len(block) async for block in stream]
    assert sum(sizes) == 3 * MIB + 1
    assert min(sizes) > 0
    assert max(sizes) <= MIB


async def test_an_absent_key_raises_before_any_byte(storage: Storage) -> None:
    await put_bytes(storage, "dir/key", b"body")
    for key in ("absent", "dir", "di", "dir/ke", "dir/key/below", "dir/key/deep/below"):
        with pytest.raises(ObjectNotFound, match=key):
            await storage.stat(key)
        with pytest.raises(ObjectNotFound, match=key):
            async with storage.get(key):
                pytest.fail("opened")


async def test_a_reader_may_leave_early(storage: Storage) -> None:
    await put_bytes(storage, "key", bytes(4 * MIB))
    for _ in range(40):
        async with storage.get("key") as stream:
            async for _block in stream:
                break
    async with storage.get("key"):
        pass
    assert len(await get_bytes(storage, "key")) == 4 * MIB


async def test_an_error_of_the_reader_passes_through(storage: Storage) -> None:
    await put_bytes(storage, "key", bytes(4 * MIB))

    async def fail() -> None:
        async with storage.get("key") as stream:
            async for _block in stream:
                raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fail()


async def test_a_cancelled_reader_leaves_the_storage_usable(storage: Storage) -> None:
    await put_bytes(storage, "key", bytes(8 * MIB))
    rng = random.Random(3)
    for turn in range(60):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(get_bytes(storage, "key"))
            for _ in range(turn % 10):
                await asyncio.sleep(0)
            await asyncio.sleep(rng.uniform(0, 0.004))
            task.cancel()
    assert await get_bytes(storage, "key") == bytes(8 * MIB)


async def test_a_flipped_byte_passes_through(place: Place, storage: Storage) -> None:
    """Finding it is the business of the digests above; the storage must neither hide nor fix it."""
    await put_bytes(storage, "a/key", b"0123456789")
    await place.flip("a/key", 4)
    assert await get_bytes(storage, "a/key") == b"0123" + bytes([ord("4") ^ 0xFF]) + b"56789"


# list

TRICKY = [
    "a",
    "a-",
    "a-b/c",
    "a.b",
    "a!",
    "a0",
    "aa",
    "ab/c",
    "b/a!",
    "b/a!2",
    "b/c/d",
    "b/c-/d",
    "b/c.d",
    "b/c0/e",
    "b!",
    "b-/x",
    "b.",
    "b0",
    "Z",
    "\u00e9/x",
    "\u00e9.x",
    "z/\ufffd",
    "z/\U00010000",
    "\U0001f5dd",
]


async def test_list_is_in_byte_order_of_whole_keys(storage: Storage) -> None:
    for key in random.Random(2).sample(TRICKY, len(TRICKY)):
        await put_bytes(storage, key, key.encode())
    in_order = sorted(TRICKY, key=str.encode)
    found = [each async for each in storage.list("")]
    assert [each.key for each in found] == in_order
    assert [each.size_bytes for each in found] == [len(key.encode()) for key in in_order]


async def test_list_after_any_key_of_any_prefix(storage: Storage) -> None:
    for key in TRICKY:
        await put_bytes(storage, key, b"")
    in_order = sorted(TRICKY, key=str.encode)
    prefixes = ["", "a", "a-", "b", "b/", "b/c", "b/c/", "b/c-/d", "\u00e9", "nothing", "b/c/d/e"]
    afters = [None, "", "0", "a!", "b/", "b/c", "b/c/", "b/c/zz", "b/c0", "b/\uffff", "\U0010ffff"]

    async def check(prefix: str, after: str | None) -> None:
        expected = [
            key
            for key in in_order
            if key.startswith(prefix) and (after is None or key.encode() > after.encode())
        ]
        assert await listed(storage, prefix, after) == expected, (prefix, after)

    for prefix in prefixes:
        async with asyncio.TaskGroup() as group:
            for after in [*afters, *TRICKY]:
                group.create_task(check(prefix, after))


async def test_an_empty_storage_lists_nothing(storage: Storage) -> None:
    assert await listed(storage) == []
    assert await listed(storage, "any/where") == []


@pytest.mark.timeout(180)
async def test_thousands_of_keys_are_listed_in_order(place: Place, storage: Storage) -> None:
    rng = random.Random(4)
    keys = [f"chunks/rs{number % 3}/{rng.randbytes(6).hex()}.zst" for number in range(place.many)]
    middle = place.many // 2
    remaining = iter(keys)

    async def write() -> None:
        for key in remaining:
            await put_bytes(storage, key, b"x")

    if place.plant is not None:
        place.plant(keys)
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(write())
    in_order = sorted(keys)
    assert await listed(storage) == in_order
    assert await listed(storage, "chunks/rs1/") == [key for key in in_order if "/rs1/" in key]
    assert await listed(storage, after=in_order[middle - 1]) == in_order[middle:]
    assert await listed(storage, "chunks/rs2/", after=in_order[middle - 1]) == [
        key for key in in_order[middle:] if "/rs2/" in key
    ]
    await storage.delete(iter(keys))
    assert await listed(storage) == []


async def test_a_listing_may_be_left_early(storage: Storage) -> None:
    for number in range(5):
        await put_bytes(storage, f"a/{number}", b"")
    async for _found in storage.list("a/"):
        break
    gc.collect()
    await asyncio.sleep(0)
    assert len(await listed(storage)) == 5


async def test_what_is_listed_may_be_deleted_and_written_meanwhile(storage: Storage) -> None:
    keys = [f"{number % 4}/{number:03}" for number in range(100)]
    for key in keys:
        await put_bytes(storage, key, b"")
    seen = []
    async for found in storage.list(""):
        seen.append(found.key)
        await storage.delete([found.key])
        await put_bytes(storage, f"!/{found.key}", b"")  # sorts before all of them
    assert seen == sorted(keys)
    assert await listed(storage) == [f"!/{key}" for key in sorted(keys)]


# delete


async def test_delete_removes_and_ignores_what_is_absent(place: Place, storage: Storage) -> None:
    await put_bytes(storage, "a/b/c", b"")
    await put_bytes(storage, "a/d", b"")
    await storage.delete([])
    await storage.delete(["a/b", "a", "a/b/c/below", "absent", "a/b/absent"])
    assert await listed(storage) == ["a/b/c", "a/d"]
    await storage.delete(["a/b/c", "absent", "a/b/c"])
    await storage.delete(["a/b/c"])
    assert await listed(storage) == ["a/d"]
    with pytest.raises(ObjectNotFound):
        await get_bytes(storage, "a/b/c")
    await storage.delete(["a/d"])
    assert await place.leftovers() == []


# All of them


async def test_errors_name_the_key_and_what_was_done(storage: Storage) -> None:
    with pytest.raises(ObjectNotFound, match=r"cannot \w+.* 'gone/key'"):
        await get_bytes(storage, "gone/key")


async def test_the_address_is_for_people(storage: Storage) -> None:
    assert "://" in storage.address
    assert storage.capabilities.max_concurrency > 0
    assert storage.capabilities.max_object_bytes >= 5 * 1024**3


async def test_verbs_may_run_concurrently(place: Place, storage: Storage) -> None:
    async def work(number: int) -> None:
        rng = random.Random(number)
        for turn in range(6):
            key = f"shared/{turn % 2}/{number}-{turn}"
            body = rng.randbytes(rng.choice([0, 10, 300_000]))
            await put_object(storage, key, lambda body=body: blocks(body))  # type: ignore[misc]
            assert key in await listed(storage, "shared/")
            assert await get_bytes(storage, key) == body
            assert (await storage.stat(key)).size_bytes == len(body)
            await storage.delete([key])

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(work(number))
    assert await listed(storage) == []
    assert await place.leftovers() == []


async def test_many_readers_at_once_with_writers_between(storage: Storage) -> None:
    """A reader that stores something between two blocks waits for nobody."""
    await put_bytes(storage, "key", bytes(2 * MIB))
    many = 3 * storage.capabilities.max_concurrency

    async def copy(number: int) -> None:
        async with storage.get("key") as stream:
            async for _block in stream:
                await put_bytes(storage, f"copies/{number}", b"")
                break

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in range(many):
            group.create_task(copy(number))
    assert len(await listed(storage, "copies/")) == many


async def test_a_large_object_of_unknown_length_needs_little_memory(
    place: Place, storage: Storage
) -> None:
    if not place.is_streaming:
        pytest.skip("keeps objects in memory")
    size, block = 0, bytes(300_000)

    async def long() -> AsyncIterator[bytes]:
        for _ in range(320):
            yield block

    gc.collect()
    tracemalloc.start()
    try:
        stored = await storage.put("large", long())
        async with storage.get("large") as stream:
            async for each in stream:
                size += len(each)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size == stored.size_bytes == 320 * 300_000
    assert peak < 24 * MIB


async def test_verify_proves_and_leaves_nothing(place: Place, storage: Storage) -> None:
    await put_bytes(storage, "kept", b"")
    await storage.verify()
    assert await listed(storage) == ["kept"]
    assert await place.leftovers() == []


async def test_several_can_verify_at_once(storage: Storage) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(storage.verify())
    assert await listed(storage) == []


async def test_close_is_idempotent(place: Place) -> None:
    storage = await place.open()
    await put_bytes(storage, "key", b"")
    await storage.aclose()
    await storage.aclose()
