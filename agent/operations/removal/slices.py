"""Removing the archived oplog up to a moment.

First the run says that it begins later: from then on nobody thinks that the old moments can be
restored to. Then the slices go, the oldest first, so that whatever is left when this is cut short
is still an unbroken chain for those who know storage alone; the next removal takes the rest along.
What a backup names stays, and so does the last slice of a run that may be continued: slicing goes
on from it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from agent.archive.layout import backup_of_key, slice_span_of, slices_prefix
from agent.faults import fault_point
from agent.operations.chains import archived_replsets
from agent.operations.inventory import inventory_of, read_backup, referenced_by
from agent.operations.removal.objects import delete_keys, prove_gone
from agent.storage.base import ObjectInfo, Storage
from agent.store.slice_runs import SliceRuns
from agent.wire.optime import OpTime
from agent.wire.timelines import Run, Span


@dataclass(slots=True)
class Removed:
    """What went."""

    objects: int = 0
    size_bytes: int = 0
    kept_for_backups: int = 0
    """Slices before the floor that backups name."""
    start: dict[str, str] = field(default_factory=dict)
    """Of each replica set the first moment that its slices still carry on from."""


@dataclass(frozen=True, slots=True)
class _Found:
    item: ObjectInfo
    span: Span


async def remove_slices(
    runs: SliceRuns,
    known: Sequence[Run],
    storage: Storage,
    floor: OpTime,
    *,
    backups: Iterable[str],
    is_slicing: bool,
    check: Callable[[], None],
) -> Removed:
    """Remove slices that end at or before the floor, of every replica set; idempotent. `known` are
    the runs that lie on this storage, `backups` those that the catalogue lists. Raises
    `IntegrityError`, with nothing touched, when it cannot be known what a backup needs."""
    replsets = sorted({*await archived_replsets(storage), *(run.replset for run in known)})
    removed = Removed()
    named: set[str] | None = None
    for replset in replsets:
        own = [run for run in known if run.replset == replset]
        spared = {run.last_key for run in own if _is_needed(run, own, floor, is_slicing)}
        old, first = await _old_slices(storage, replset, floor, spared)
        if old and named is None:
            named = await named_slices(storage, floor, backups)
        going = [found for found in old if found.item.key not in (named or ())]
        removed.kept_for_backups += len(old) - len(going)
        await _shorten(runs, own, going, first, floor, is_slicing, check)
        await fault_point("delete.slices_trimmed")
        keys = [found.item.key for found in going]
        await delete_keys(storage, keys, check=check)
        await prove_gone(storage, keys)
        removed.objects += len(going)
        removed.size_bytes += sum(found.item.size_bytes for found in going)
        if first is not None:
            removed.start[replset] = str(first.span.start)
    return removed


async def _old_slices(
    storage: Storage, replset: str, floor: OpTime, spared: set[str | None]
) -> tuple[list[_Found], _Found | None]:
    """Those that may go, and the first one that stays. Days sort like the ends of the slices in
    them, so the listing stops soon after the floor."""
    old: list[_Found] = []
    async with aclosing(_listed(storage, replset)) as listed:
        async for found in listed:
            if found.span.end <= floor and found.item.key not in spared:
                old.append(found)
            elif found.item.key in spared or found.span.end > floor:
                return await _and_rest_of_day(listed, old, found, floor, spared)
    return old, None


async def _and_rest_of_day(
    listed: AsyncIterator[_Found],
    old: list[_Found],
    first: _Found,
    floor: OpTime,
    spared: set[str | None],
) -> tuple[list[_Found], _Found | None]:
    """Two slicers may have overlapped for a moment, and a run ended with a slice that is spared:
    what follows within two days may be old as well."""
    last_day = max(floor.T, first.span.end.T) // 86400 + 1
    async for found in listed:
        if last_day < found.span.end.T // 86400:
            break
        if found.span.end <= floor and found.item.key not in spared:
            old.append(found)
    return old, first


async def _listed(storage: Storage, replset: str) -> AsyncGenerator[_Found]:
    async for item in storage.list(slices_prefix(replset)):
        span = slice_span_of(item.key)
        if span is not None:
            yield _Found(item, Span(start=span[0], end=span[1]))


def _is_needed(run: Run, own: Sequence[Run], floor: OpTime, is_slicing: bool) -> bool:
    """Whether its last slice stays: it reaches past the floor, or slicing goes on from it."""
    return run.span.end > floor or (is_slicing and not run.sealed and run is own[-1])


async def _shorten(
    runs: SliceRuns,
    own: Sequence[Run],
    going: Sequence[_Found],
    first: _Found | None,
    floor: OpTime,
    is_slicing: bool,
    check: Callable[[], None],
) -> None:
    """Tell the control database what is about to go."""
    check()
    await runs.forget(run.id for run in own if not _is_needed(run, own, floor, is_slicing))
    for run in own:
        if not _is_needed(run, own, floor, is_slicing):
            continue
        mine = [found for found in going if run.start <= found.span.start < run.end]
        if not mine:
            continue
        start = max(found.span.end for found in mine)
        check()
        await runs.trim(
            run.id,
            start,
            slices=len(mine),
            size_bytes=sum(found.item.size_bytes for found in mine),
        )
    if own:
        await runs.forget_gaps(own[0].replset, floor)


async def named_slices(storage: Storage, floor: OpTime, known: Iterable[str] = ()) -> set[str]:
    """The slices up to a floor that a backup names, published or not, listed by the storage or
    `known`. Raises `IntegrityError`."""
    names = {*known, *[backup_of_key(item.key) async for item in storage.list("backups/")]}
    found: set[str] = set()
    for name in _sorted(names):
        backup = await read_backup(storage, name)
        if backup is None:
            found |= (await inventory_of(storage, name)).slices
        elif backup.first_write < floor:
            found |= await referenced_by(storage, [name])
    return found


def _sorted(names: Iterable[str | None]) -> list[str]:
    return sorted(name for name in names if name is not None)
