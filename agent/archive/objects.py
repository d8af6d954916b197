"""Writing and reading whole objects of the repository, with their digests.

A chunk or slice is built in memory (it is bounded: a chunk's target size plus one document), so its
header can state counts and its digest is known the moment it is durable. Reading checks size and
digest before a byte is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from agent.archive.codec import digest_of, in_thread, open_object, pack_json, unpack_json
from agent.archive.framing import Frame, assemble
from agent.errors import IntegrityError, ObjectNotFound
from agent.storage.base import ObjectInfo, Storage, get_bytes, put_bytes


async def _each(blocks: list[bytes]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def put_framed(
    storage: Storage, key: str, header: dict[str, Any], frames: list[Frame]
) -> tuple[ObjectInfo, str]:
    """Store an object; answers what was stored and its SHA-256."""
    blocks = assemble(header, frames)
    digest = await in_thread(digest_of, blocks)
    size = sum(len(block) for block in blocks)
    stored = await storage.put(key, _each(blocks), size_hint=size)
    if stored.size_bytes != size:
        raise IntegrityError(f"{key}: {size} bytes were sent and {stored.size_bytes} were stored")
    return stored, digest


async def fetch(storage: Storage, key: str, *, size_bytes: int, sha256: str) -> bytes:
    """The stored bytes of an object, proven to be those that were written.

    Raises `IntegrityError` naming the object when it is missing, cut short or changed.
    """
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
    return await in_thread(open_object, data, key)


async def put_json(storage: Storage, key: str, text: str) -> tuple[int, str]:
    """Store a compressed JSON document; answers stored size and SHA-256."""
    data = await in_thread(pack_json, text.encode())
    await put_bytes(storage, key, data)
    return len(data), digest_of([data])


async def get_json(storage: Storage, key: str, *, sha256: str | None = None) -> bytes:
    """A compressed JSON document, checked against its digest where one is known."""
    try:
        data = await get_bytes(storage, key)
    except ObjectNotFound as error:
        raise IntegrityError(f"{key} is missing from {storage.address}") from error
    if sha256 is not None and digest_of([data]) != sha256:
        raise IntegrityError(
            f"{key} on {storage.address} is not what was written: its digest differs"
        )
    return await in_thread(unpack_json, data, key)
