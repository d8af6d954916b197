"""What was written is what is read, or the object is named as harmed."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.archive.codec import NICENESS, Compression, digest_of, in_thread, pack_json, unpack_json
from agent.archive.objects import fetch, fetch_framed, get_json, put_framed, put_json
from agent.errors import IntegrityError, StorageUnavailable
from agent.storage.base import put_bytes
from agent.storage.memory import MemoryObjects, MemoryStorage
from agent.storage.retrying import RetryingStorage, RetryPolicy
from tests.support.faulty_storage import FaultyStorage

KEY = "chunks/rs0/bundles/x.bson.zst"
_CONTENT = [b"documents " * 400, b"more documents"]


async def _stored() -> tuple[MemoryStorage, int, str]:
    storage = await MemoryStorage.open()
    frames = [await Compression().frame(block) for block in _CONTENT]
    info, digest = await put_framed(storage, KEY, {"kind": "chunk"}, frames)
    return storage, info.size_bytes, digest


async def test_threads_that_compress_give_way_to_others_and_the_loop_does_not() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    assert await in_thread(niceness) == max(before, NICENESS)
    assert niceness() == before


async def test_an_object_is_read_back() -> None:
    storage, size, digest = await _stored()
    header, plain = await fetch_framed(storage, KEY, size_bytes=size, sha256=digest)
    assert header["kind"] == "chunk"
    assert plain == _CONTENT


async def test_every_flipped_byte_is_found() -> None:
    storage, size, digest = await _stored()
    whole = storage.objects.bodies[KEY]
    for position in range(len(whole)):
        harmed = bytearray(whole)
        harmed[position] ^= 1 << position % 8
        storage.objects.bodies[KEY] = bytes(harmed)
        with pytest.raises(IntegrityError, match=KEY):
            await fetch(storage, KEY, size_bytes=size, sha256=digest)


async def test_every_truncation_is_found() -> None:
    storage, size, digest = await _stored()
    whole = storage.objects.bodies[KEY]
    for length in range(len(whole)):
        storage.objects.bodies[KEY] = whole[:length]
        with pytest.raises(IntegrityError, match=f"{KEY} .* has {length} bytes"):
            await fetch(storage, KEY, size_bytes=size, sha256=digest)


@settings(deadline=None)
@given(tail=st.binary(min_size=1, max_size=30))
async def test_every_extension_is_found(tail: bytes) -> None:
    storage, size, digest = await _stored()
    storage.objects.bodies[KEY] += tail
    with pytest.raises(IntegrityError, match=KEY):
        await fetch(storage, KEY, size_bytes=size, sha256=digest)


@pytest.mark.parametrize("verb", ["put", "get"])
async def test_a_byte_changed_on_its_way_is_found(verb: Literal["put", "get"]) -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.corrupt(verb, at=17, times=2)
    info, digest = await put_framed(faulty, KEY, {}, [await Compression().frame(b"x" * 99)])
    with pytest.raises(IntegrityError, match="digest differs"):
        await fetch(faulty, KEY, size_bytes=info.size_bytes, sha256=digest)
    assert faulty.count("get") == 2


async def test_what_is_changed_on_its_way_once_is_read_again() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    info, digest = await put_framed(faulty, KEY, {}, [await Compression().frame(b"x" * 99)])
    faulty.corrupt("get", at=17)
    faulty.truncate("get", at=20, call=3)
    for reads in (2, 4):
        found = await fetch(faulty, KEY, size_bytes=info.size_bytes, sha256=digest)
        assert digest_of([found]) == digest
        assert faulty.count("get") == reads


async def test_a_storage_that_fails_for_a_moment_gets_a_chunk_again() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.fail("put", StorageUnavailable("no route"))
    faulty.fail_after("put", StorageUnavailable("reset"), call=1)
    storage = RetryingStorage(faulty, RetryPolicy(base_delay_s=0.01))
    frames = [await Compression().frame(block) for block in _CONTENT]
    info, digest = await put_framed(storage, KEY, {"kind": "chunk"}, frames)
    _, plain = await fetch_framed(storage, KEY, size_bytes=info.size_bytes, sha256=digest)
    assert plain == _CONTENT
    assert [verb for verb, _ in faulty.calls].count("put") > 1


async def test_a_storage_that_stores_less_is_not_believed() -> None:
    faulty = FaultyStorage(await MemoryStorage.open())
    faulty.truncate("put", at=20)
    with pytest.raises(IntegrityError, match=f"{KEY}: .* bytes were sent and 20 were stored"):
        await put_framed(faulty, KEY, {}, [await Compression().frame(b"x" * 99)])


async def test_a_missing_object_is_named_with_its_storage() -> None:
    storage = await MemoryStorage.open(MemoryObjects(), name="vault")
    with pytest.raises(IntegrityError, match=f"{KEY} is missing from memory://vault"):
        await fetch(storage, KEY, size_bytes=1, sha256="")
    with pytest.raises(IntegrityError, match=f"{KEY} is missing from memory://vault"):
        await get_json(storage, KEY)


@settings(deadline=None)
@given(text=st.text(max_size=500))
async def test_a_json_document_is_read_back(text: str) -> None:
    storage = await MemoryStorage.open()
    size, digest = await put_json(storage, KEY, text)
    assert size == len(storage.objects.bodies[KEY])
    assert await get_json(storage, KEY, sha256=digest) == text.encode()


async def test_every_flipped_byte_of_a_json_document_is_found_even_without_its_digest() -> None:
    whole = pack_json(b'{"units": [1, 2, 3], "text": "the journal of a part"}' * 5)
    plain = unpack_json(whole, KEY)
    for position in range(len(whole)):
        storage = await MemoryStorage.open()
        harmed = bytearray(whole)
        harmed[position] ^= 0xFF
        await put_bytes(storage, KEY, bytes(harmed))
        with suppress(IntegrityError):
            assert await get_json(storage, KEY) == plain, f"byte {position}"


async def test_a_json_document_of_another_digest_is_refused() -> None:
    storage = await MemoryStorage.open()
    await put_json(storage, KEY, "{}")
    with pytest.raises(IntegrityError, match="digest differs"):
        await get_json(storage, KEY, sha256="0" * 64)
