"""Writing and reading whole objects of the repository, with their digests.

A chunk or slice is built in memory (it is bounded: a chunk's target size plus one document), so its
header can state counts and its digest is known the moment it is durable. Reading checks size and
digest before a byte is used. Objects whose key ends in `.enc` are sealed and opened here, with the
keys that the storage brings along (`agent.archive.vault`); nobody else has to know.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import structlog

from agent.allocator import give_back
from agent.archive.codec import Compression, digest_of, expand, in_thread, pack_json, unpack_json
from agent.archive.envelope import (
    SALT_BYTES,
    Opened,
    Sealer,
    encryption_of,
    is_encrypted,
    public_header,
)
from agent.archive.framing import Frame, assemble, clear_part, dissect, read_header
from agent.archive.keyring import Keyring
from agent.archive.vault import keyring_of
from agent.errors import ConfigError, IntegrityError, ObjectNotFound
from agent.storage.base import ObjectInfo, Storage, get_bytes, put_bytes
from agent.storage.sources import replayed

T = TypeVar("T")
log = structlog.stdlib.get_logger()


async def _let_go(blocks: list[bytes]) -> AsyncIterator[bytes]:
    """Blocks, each forgotten as it is taken: whoever sends it in parts has his own copy."""
    blocks.reverse()
    while blocks:
        yield blocks.pop()


async def put_framed(
    storage: Storage, key: str, header: dict[str, Any], frames: list[Frame]
) -> tuple[ObjectInfo, str]:
    """Store an object; answers what was stored and its SHA-256. Sealed if its key says so.
    `frames` keep their sizes only: the stored bytes would take twice the memory otherwise."""
    if is_encrypted(key):
        blocks = await _sealed(storage, key, header, frames)
    else:
        blocks = assemble(header, frames)
        frames[:] = [Frame(b"", frame.plain_bytes) for frame in frames]
    digest = await in_thread(digest_of, blocks)
    size = sum(len(block) for block in blocks)
    # A driver that tries its parts again by itself needs no second reading of the whole.
    is_once = storage.capabilities.retries_put
    source = _let_go(blocks) if is_once else replayed(blocks)
    stored = await storage.put(key, source, size_hint=size)
    del blocks, source
    await in_thread(give_back)  # an object of large documents is made of very large blocks
    if stored.size_bytes != size:
        raise IntegrityError(f"{key}: {size} bytes were sent and {stored.size_bytes} were stored")
    return stored, digest


async def _sealed(
    storage: Storage, key: str, header: dict[str, Any], frames: list[Frame]
) -> list[bytes]:
    data_key = await _keyring(storage, key).writing_key(key)
    sizes = [(len(frame.stored), frame.plain_bytes) for frame in frames]
    sealer = Sealer(
        data_key,
        key,
        os.urandom(SALT_BYTES),
        public=public_header(header),
        private=json.dumps(header, separators=(",", ":")).encode(),
        sizes=sizes,
    )
    blocks = [*sealer.head, sealer.private]
    for number, frame in enumerate(frames):
        blocks.append(await in_thread(sealer.seal, frame.stored))
        frames[number] = Frame(b"", frame.plain_bytes)
    return blocks


def _keyring(storage: Storage, key: str) -> Keyring:
    keyring = keyring_of(storage, key)
    if keyring is None:
        raise ConfigError(f"{key} is encrypted, and this storage was opened without its keys")
    return keyring


async def opened(storage: Storage, data: bytes, key: str) -> Opened:
    """An encrypted object. Raises `IntegrityError`, and `KeyUnusable` without its key."""
    described = encryption_of(read_header(data, key), key)
    data_key = await _keyring(storage, key).data_key(described["key_id"])
    return await in_thread(Opened, data, key, data_key)


async def plain_frames(storage: Storage, data: bytes, key: str) -> AsyncIterator[bytes]:
    """The plain frames of an object's bytes, one at a time. Raises `IntegrityError`, and
    `KeyUnusable` without its key."""
    if not is_encrypted(key):
        for stored, size in dissect(data, key)[1]:
            yield await in_thread(expand, stored, size, key)
        return
    sealed = await opened(storage, data, key)
    for number, size in enumerate(sealed.sizes):
        yield await in_thread(_opened_frame, sealed, number, size)


def _opened_frame(sealed: Opened, number: int, size: int) -> bytes:
    return expand(memoryview(sealed.frame(number)), size, sealed.key)


async def read_again_once(key: str, read: Callable[[], Awaitable[T]]) -> T:
    """What `read` answers. What it finds changed may be changed on the way only, by a proxy or bad
    memory, so it is called once more; what it raises then is raised."""
    try:
        return await read()
    except IntegrityError as error:
        log.warning("object.read_again", key=key, error=str(error))
    return await read()


async def fetch(storage: Storage, key: str, *, size_bytes: int, sha256: str) -> bytes:
    """The stored bytes of an object, proven to be those that were written, at the second reading if
    need be.

    Raises `IntegrityError` naming the object when it is missing, cut short or changed.
    """
    return await read_again_once(key, lambda: _fetch(storage, key, size_bytes, sha256))


async def _fetch(storage: Storage, key: str, size_bytes: int, sha256: str) -> bytes:
    try:
        data = await get_bytes(storage, key)
    except ObjectNotFound as error:
        raise IntegrityError(f"{key} is missing from {storage.address}") from error
    if len(data) != size_bytes:
        raise IntegrityError(
            f"{key} on {storage.address} has {len(data)} bytes and should have {size_bytes}"
        )
    if await in_thread(digest_of, [data]) != sha256:
        raise IntegrityError(
            f"{key} on {storage.address} is not what was written: its digest differs"
        )
    return data


async def fetch_framed(
    storage: Storage, key: str, *, size_bytes: int, sha256: str
) -> tuple[dict[str, Any], list[bytes]]:
    """Header and plain frames of a proven object."""
    data = await fetch(storage, key, size_bytes=size_bytes, sha256=sha256)
    header = read_header(data, key)
    if is_encrypted(key):
        header = (await opened(storage, data, key)).header()
    return header, [frame async for frame in plain_frames(storage, data, key)]


async def put_json(
    storage: Storage, key: str, text: str, *, public: str | None = None
) -> tuple[int, str]:
    """Store a compressed JSON document; answers stored size and SHA-256. Of one that is sealed,
    since its key says so, `public` is what everybody may read."""
    data = await in_thread(pack_json, text.encode())
    if is_encrypted(key):
        clear = await in_thread(pack_json, public.encode()) if public is not None else b""
        data = await _sealed_document(storage, key, data, len(text.encode()), clear)
    await put_bytes(storage, key, data)
    return len(data), digest_of([data])


async def put_text(storage: Storage, key: str, text: str) -> None:
    """Store a small document as it is, or sealed since its key says so."""
    data = text.encode()
    if is_encrypted(key):
        frame = Compression("none").frame_of(data)
        data = await _sealed_document(storage, key, frame.stored, len(data), b"")
    await put_bytes(storage, key, data)


async def _sealed_document(
    storage: Storage, key: str, frame: bytes, plain_bytes: int, clear: bytes
) -> bytes:
    sealer = Sealer(
        await _keyring(storage, key).writing_key(key),
        key,
        os.urandom(SALT_BYTES),
        public={"kind": "document"},
        private=b"",
        sizes=[(len(frame), plain_bytes)],
        clear=clear,
    )
    return b"".join([*sealer.head, sealer.private, await in_thread(sealer.seal, frame)])


async def get_json(storage: Storage, key: str, *, sha256: str | None = None) -> bytes:
    """A compressed JSON document, checked against its digest where one is known."""
    data = await _document(storage, key, sha256)
    if is_encrypted(key):
        return b"".join([frame async for frame in plain_frames(storage, data, key)])
    return await in_thread(unpack_json, data, key)


async def get_public_json(storage: Storage, key: str, *, sha256: str | None = None) -> bytes:
    """The same without a key: of a sealed document what everybody may read. That part is not
    proven but by the digest: who needs to be sure reads the whole."""
    data = await _document(storage, key, sha256)
    if is_encrypted(key):
        data = clear_part(data, key)
    return await in_thread(unpack_json, data, key)


async def _document(storage: Storage, key: str, sha256: str | None) -> bytes:
    return await read_again_once(key, lambda: _read_document(storage, key, sha256))


async def _read_document(storage: Storage, key: str, sha256: str | None) -> bytes:
    try:
        data = await get_bytes(storage, key)
    except ObjectNotFound as error:
        raise IntegrityError(f"{key} is missing from {storage.address}") from error
    if sha256 is not None and digest_of([data]) != sha256:
        raise IntegrityError(
            f"{key} on {storage.address} is not what was written: its digest differs"
        )
    return data
