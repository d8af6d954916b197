"""The slices that carry a restore on from a backup's `last_write` to a later moment.

They are found on storage alone: keys say what each slice covers, headers how it links. The digest
of a slice is what its successor says it is; only the last one, which has none, is read to know its
own. Reading every object against these digests is the business of the preflight. Where two slicers
overlapped for a moment (one had lost its lease without knowing it), two slices may end at the same
place: both hold what the majority committed, and the one that the next slice continues is taken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from agent.archive.manifest import SliceRef
from agent.operations.authenticity import prove_chain
from agent.operations.slices import keys_after, read_described_ref, read_slice_ref
from agent.storage.base import ObjectInfo, Storage
from agent.tasks import TaskGroup
from agent.wire.optime import OpTime

_HEADERS_AT_ONCE: Final = 16


async def further_slices(
    storage: Storage, replset: str, *, since: OpTime, until: OpTime
) -> tuple[SliceRef, ...]:
    """Linked slices that hold every entry in `(since, until]`; as far as they reach where they do
    not reach it. The first may begin before `since`. Raises `IntegrityError`, too where somebody
    else than the archiver put them there, and `KeyUnusable`."""
    items = [item async for item, span in keys_after(storage, replset, since) if span.start < until]
    chain = await _longest(storage, await _described(storage, items), since)
    if not chain:
        return ()
    linked = [
        ref.model_copy(update={"sha256": after.previous_sha256}) for ref, after in pairwise(chain)
    ]
    found = (*linked, await read_slice_ref(storage, chain[-1].key))
    await prove_chain(storage, replset, found)
    return found


async def _described(storage: Storage, items: Sequence[ObjectInfo]) -> list[SliceRef]:
    found: list[SliceRef] = []
    remaining = iter(items)

    async def read() -> None:
        for item in remaining:
            found.append(await read_described_ref(storage, item))  # noqa: PERF401

    async with TaskGroup() as group:
        for _ in range(_HEADERS_AT_ONCE):
            group.create_task(read())
    return found


async def _longest(storage: Storage, refs: Sequence[SliceRef], since: OpTime) -> list[SliceRef]:
    """The chain that begins at or before `since` and reaches furthest. Links are followed from the
    end: a slice names the one before it, never the one after."""
    by_end: defaultdict[OpTime, list[SliceRef]] = defaultdict(list)
    for ref in refs:
        by_end[ref.end].append(ref)
    for last in sorted(refs, key=lambda ref: ref.end, reverse=True):
        chain = [last]
        while chain[-1].start > since and chain[-1].previous_sha256 is not None:
            before = await _before(storage, by_end[chain[-1].start], chain[-1].previous_sha256)
            if before is None:
                break
            chain.append(before)
        if chain[-1].start <= since:
            return chain[::-1]
    return []


async def _before(storage: Storage, candidates: Sequence[SliceRef], sha256: str) -> SliceRef | None:
    """Which of the slices that end where another begins is the one it continues. Their digests
    are asked for only where there are several."""
    if len(candidates) < 2:
        return next(iter(candidates), None)
    for candidate in candidates:
        if (await read_slice_ref(storage, candidate.key)).sha256 == sha256:
            return candidate
    return None
