"""Which stored slices carry a restore on, found on storage alone."""

from __future__ import annotations

import pytest

from agent.archive.codec import Compression
from agent.archive.layout import slice_key
from agent.archive.manifest import SliceRef
from agent.archive.objects import put_framed
from agent.errors import IntegrityError, TargetNotCovered
from agent.operations.restore.further import further_slices
from agent.operations.restore.preflight import check_chain
from agent.storage.base import Storage
from agent.storage.memory import MemoryStorage
from agent.wire.optime import OpTime

REPLSET = "rs0"


def at(second: int) -> OpTime:
    """A moment of one day."""
    return OpTime(T=1_700_000_000 + second, I=1)


async def put(storage: Storage, start: int, end: int, previous: str | None, epoch: int = 1) -> str:
    """Store a slice; answers its digest."""
    key = slice_key(REPLSET, at(start), at(end), 1, epoch)
    header = {
        "start": at(start).to_json(),
        "start_term": 1,
        "end": at(end).to_json(),
        "end_term": 1,
        "count": end - start,
        "previous_sha256": previous,
        "commands": [],
    }
    frame = await Compression().frame(f"{start}-{end}-{epoch}".encode())
    _, digest = await put_framed(storage, key, header, [frame])
    return digest


async def chain(storage: Storage, *ends: int, start: int = 0) -> list[str]:
    """Linked slices."""
    digests: list[str] = []
    for end in ends:
        digests.append(await put(storage, start, end, digests[-1] if digests else None))
        start = end
    return digests


def spans(found: tuple[SliceRef, ...]) -> list[tuple[int, int]]:
    """What they cover."""
    return [(ref.start.T - at(0).T, ref.end.T - at(0).T) for ref in found]


async def test_only_what_is_needed_is_taken_and_its_digests_are_right() -> None:
    storage = await MemoryStorage.open()
    digests = await chain(storage, 10, 20, 30, 40, 50)
    found = await further_slices(storage, REPLSET, since=at(15), until=at(35))
    assert spans(found) == [(10, 20), (20, 30), (30, 40)]
    assert [ref.sha256 for ref in found] == digests[1:4]
    check_chain(found, at(15), at(35))


async def test_a_missing_slice_ends_the_coverage_before_it() -> None:
    storage = await MemoryStorage.open()
    await chain(storage, 10, 20, 30, 40)
    await storage.delete([slice_key(REPLSET, at(20), at(30), 1, 1)])
    found = await further_slices(storage, REPLSET, since=at(5), until=at(40))
    assert spans(found) == [(0, 10), (10, 20)]
    with pytest.raises(TargetNotCovered, match="reach"):
        check_chain(found, at(5), at(40))


async def test_slices_that_begin_too_late_are_no_continuation() -> None:
    storage = await MemoryStorage.open()
    await chain(storage, 20, 30, start=10)
    assert await further_slices(storage, REPLSET, since=at(5), until=at(30)) == ()
    with pytest.raises(TargetNotCovered, match="begin"):
        check_chain((), at(5), at(30))


async def test_of_two_slicers_that_overlapped_the_one_that_went_on_is_taken() -> None:
    storage = await MemoryStorage.open()
    first = await put(storage, 0, 10, None)
    await put(storage, 5, 20, "a zombie's own chain", epoch=1)
    second = await put(storage, 10, 20, first, epoch=2)
    await put(storage, 20, 30, second, epoch=2)
    found = await further_slices(storage, REPLSET, since=at(2), until=at(30))
    assert [ref.sha256 for ref in found[:2]] == [first, second]
    check_chain(found, at(2), at(30))


async def test_a_slice_that_links_to_another_is_refused() -> None:
    storage = await MemoryStorage.open()
    first = await put(storage, 0, 10, None)
    await put(storage, 10, 20, first)
    found = await further_slices(storage, REPLSET, since=at(0), until=at(20))
    forged = found[1].model_copy(update={"previous_sha256": "0" * 64})
    with pytest.raises(IntegrityError, match="does not continue"):
        check_chain((found[0], forged), at(0), at(20))
