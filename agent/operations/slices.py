"""The slices of a replica set as storage has them: what exists, and how it links."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import Any, Final

import structlog

from agent.archive.codec import digest_of, in_thread
from agent.archive.envelope import encryption_of
from agent.archive.framing import dissect, read_header
from agent.archive.layout import slice_span_of, slices_prefix
from agent.archive.manifest import SliceRef
from agent.errors import IntegrityError, ObjectNotFound, StorageUnavailable
from agent.storage.base import ObjectInfo, Storage, get_bytes
from agent.tasks import TaskGroup
from agent.wire.optime import OpTime
from agent.wire.timelines import Span

_HEADER_BYTES: Final = 64 << 10
"""More than any slice's header."""
HEADERS_AT_ONCE: Final = 16

log = structlog.stdlib.get_logger()


async def keys_after(
    storage: Storage, replset: str, moment: OpTime, *, after: str | None = None
) -> AsyncGenerator[tuple[ObjectInfo, Span]]:
    """Slices that end after a moment, with what their keys say they cover, ascending by day
    and start. `after` skips listing what sorts before it."""
    async for item in storage.list(slices_prefix(replset), after=after):
        found = slice_span_of(item.key)
        if found is not None and found[1] > moment:
            yield item, Span(start=found[0], end=found[1])


async def listed_slices(
    storage: Storage, replset: str, known: Iterable[str | None] = ()
) -> list[ObjectInfo]:
    """All slices of a replica set, by their keys. Raises `StorageUnavailable` where the list lacks
    one of those that are `known` and that is there: it is behind, and who believed it would take
    for lost what is not."""
    found = [
        item
        async for item in storage.list(slices_prefix(replset))
        if slice_span_of(item.key) is not None
    ]
    for key in sorted({*filter(None, known)} - {item.key for item in found}):
        try:
            await storage.stat(key)
        except ObjectNotFound:
            continue
        raise StorageUnavailable(
            f"the list of {storage.address} lacks {key}, which is there",
            hint="the storage lists late what was written: try again in a minute",
        )
    return found


async def read_slice_ref(storage: Storage, key: str) -> SliceRef:
    """What a stored slice says of itself, with size and digest as it is now. The digest is proven
    by the slice that follows it, which names it. Raises `IntegrityError`."""
    data = await get_bytes(storage, key)
    header, frames = dissect(data, key)
    digest = await in_thread(digest_of, [data])
    return _ref(key, header, len(data), digest, sum(plain for _, plain in frames))


async def read_described_ref(storage: Storage, item: ObjectInfo) -> SliceRef:
    """The same from the header alone, without a digest. Raises `IntegrityError`."""
    header = await read_slice_header(storage, item)
    plain = sum(size for _, size in header["frames"])
    return _ref(item.key, header, item.size_bytes, "", plain)


async def read_slice_header(storage: Storage, item: ObjectInfo) -> dict[str, Any]:
    """The header of a slice as it is. Raises `IntegrityError`."""
    length = min(item.size_bytes, _HEADER_BYTES)
    async with storage.get(item.key, length=length) as source:
        head = b"".join([block async for block in source])
    return read_header(head, item.key)


async def described_refs(storage: Storage, items: Sequence[ObjectInfo]) -> list[SliceRef]:
    """What many slices say of themselves, in no order. One that cannot be read is logged and left
    out: it is missing where it is looked for. So is one that was deleted since it was listed."""
    found: list[SliceRef] = []
    remaining = iter(items)

    async def read() -> None:
        for item in remaining:
            try:
                found.append(await read_described_ref(storage, item))
            except IntegrityError as error:
                log.error("oplog.slice_unreadable", key=item.key, error=str(error))
            except ObjectNotFound:
                log.warning("oplog.slice_gone", key=item.key)

    async with TaskGroup() as group:
        for _ in range(HEADERS_AT_ONCE):
            group.create_task(read())
    return found


def _ref(key: str, header: dict[str, Any], size: int, digest: str, plain: int) -> SliceRef:
    try:
        return SliceRef(
            key=key,
            size_bytes=size,
            sha256=digest,
            plain_bytes=plain,
            count=header["count"],
            start=OpTime.from_document(header["start"]),
            start_term=header["start_term"],
            end=OpTime.from_document(header["end"]),
            end_term=header["end_term"],
            previous_sha256=header["previous_sha256"],
            commands=tuple(header["commands"]),
            key_id=encryption_of(header, key)["key_id"] if "encryption" in header else None,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise IntegrityError(f"the header of {key} is no slice's: {error!r}") from error
