"""Runs of slices as storage alone tells them: what exists, how it links, what is missing.

Slices that a backup archived for its own span are no run: they are left out, and so is what a
worker of a backup stored and did not live to note, which continues one of those. What lies within
a longer chain adds nothing and is left out as well (two slicers may overlap for a moment). All runs
are sealed but the one that reaches furthest; whether the oplog still continues that one is for the
slicer to prove, and it says so if not. A restore seals what was archived before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import structlog

from agent.archive.layout import SLICES, backup_of_key, restore_moment_of, slice_span_of
from agent.archive.manifest import SliceRef
from agent.errors import IntegrityError, ObjectNotFound
from agent.operations.authenticity import may_be_in_clear, policy_of
from agent.operations.inventory import inventory_of
from agent.operations.slices import described_refs, listed_slices, read_slice_ref
from agent.storage.base import ObjectInfo, Storage
from agent.store.slice_runs import SliceRuns
from agent.wire.optime import ZERO, OpTime
from agent.wire.timelines import Gap, GapCause, Run, reshaped_by

log = structlog.stdlib.get_logger()


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What storage says of one replica set."""

    runs: tuple[Run, ...]
    gaps: tuple[Gap, ...]
    keys: frozenset[str]
    """All slices."""


async def archived_replsets(storage: Storage) -> list[str]:
    """Replica sets of which there are slices, backups' own ones included."""
    found = {item.key.split("/")[1] async for item in storage.list(SLICES)}
    return sorted(found)


async def rebuild(storage: Storage, replset: str, known: Sequence[Run] = ()) -> Rebuilt:
    """The runs of one replica set and the gaps between them; slices that cannot be read are as good
    as missing. How far a run that is `known` went on after its last slice, where nothing worth
    storing happened, storage cannot say: that stays. Raises `StorageUnavailable` where the last
    slice of one is there and not listed."""
    owned = await _slices_of_backups(storage)
    items = await listed_slices(storage, replset, [run.last_key for run in known])
    covered = {run.last_key: run.covered_until for run in known}
    forged = await _forged(storage, items)
    taken = {span[1] for key in owned if (span := slice_span_of(key)) is not None}
    refs = await described_refs(storage, [item for item in items if item.key not in owned | forged])
    reshaped = {ref.end: cause for ref in refs if (cause := reshaped_by(ref.commands)) is not None}
    refs = [ref for ref in refs if reshaped_by(ref.commands) is None]
    found = [c for c in chains(refs) if not _continues_a_backup(c[0], taken)]
    restores = await _restores(storage, replset)
    made = [(chain, await _run(storage, replset, chain, covered)) for chain in _outermost(found)]
    kept = [(chain[0], run) for chain, run in made if run is not None]
    gaps = [
        _gap(before, after, first, restores, reshaped.get(after.start))
        for (_, before), (first, after) in pairwise(kept)
        if before.span.end < after.start
    ]
    runs = [run for _, run in kept]
    newest = len(runs) - 1
    sealed = [
        run.model_copy(
            update={"sealed": number < newest or any(at >= run.end.T for at in restores)}
        )
        for number, run in enumerate(runs)
    ]
    return Rebuilt(tuple(sealed), tuple(gaps), frozenset(item.key for item in items))


async def _forged(storage: Storage, items: Sequence[ObjectInfo]) -> set[str]:
    """Slices in clear that begin when nobody who may wrote in clear any more."""
    policy = await policy_of(storage)
    found = {item.key for item in items if not may_be_in_clear(item.key, policy)}
    if found:
        log.error("encryption.foreign_slices", objects=len(found), first=min(found))
    return found


def chains(refs: Iterable[SliceRef]) -> list[list[SliceRef]]:
    """Slices that continue each other, in chains, by start. Where several begin at one end, the one
    that reaches furthest is followed."""
    following: dict[OpTime, list[SliceRef]] = {}
    for ref in refs:
        following.setdefault(ref.start, []).append(ref)
    reached = {ref.end for ref in refs}
    return [
        _followed(first, following)
        for start in sorted(following)
        for first in following[start]
        if first.previous_sha256 is None or start not in reached
    ]


def _followed(first: SliceRef, following: dict[OpTime, list[SliceRef]]) -> list[SliceRef]:
    chain = [first]
    while True:
        candidates = [r for r in following.get(chain[-1].end, ()) if r.previous_sha256 is not None]
        if not candidates:
            return chain
        # A zombie's slice is continued by nobody; of two the one that is continued is right, and
        # where neither is, the longer one.
        chain.append(max(candidates, key=lambda ref: (ref.end in following, ref.end)))


def _outermost(found: Sequence[list[SliceRef]]) -> list[list[SliceRef]]:
    """Without those that lie within another, ascending."""
    kept: list[list[SliceRef]] = []
    end = ZERO
    for chain in sorted(found, key=lambda c: (c[0].start, -c[-1].end.pack())):
        if chain[-1].end > end:
            kept.append(chain)
            end = chain[-1].end
    return kept


def _continues_a_backup(first: SliceRef, ends: set[OpTime]) -> bool:
    return first.previous_sha256 is not None and first.start in ends


async def restore_runs(
    runs: SliceRuns,
    storage: Storage,
    replset: str,
    repository_id: str | None,
    *,
    check: Callable[[], None],
) -> list[Run]:
    """Note in the control database what storage says of one replica set. A run that is being
    written now stays as its writer has it, and so do runs in other repositories."""
    known = [run for run in await runs.runs(replset) if run.is_in(repository_id)]
    rebuilt = await rebuild(storage, replset, known)
    live = next((run for run in known[-1:] if _is_written(run, rebuilt.keys)), None)
    older = [run for run in rebuilt.runs if live is None or run.end < live.start]
    for run in older:
        check()
        update = {"repository_id": repository_id, "sealed": run.sealed or live is not None}
        await runs.restore(run.model_copy(update=update))
    check()
    kept = {run.id for run in older} | ({live.id} if live else set())
    await runs.forget(run.id for run in known if run.id not in kept)
    for gap in rebuilt.gaps:
        await runs.record_gap(gap, is_better=False)
    return older + ([live] if live else [])


def _is_written(run: Run, keys: frozenset[str]) -> bool:
    return not run.sealed and (run.last_key is None or run.last_key in keys)


async def _run(
    storage: Storage, replset: str, chain: list[SliceRef], covered: Mapping[str | None, OpTime]
) -> Run | None:
    """The run of a chain, cut off before what cannot be read at its end."""
    while chain:
        try:
            last = await read_slice_ref(storage, chain[-1].key)
            break
        except (IntegrityError, ObjectNotFound):
            chain.pop()
    else:
        return None
    epoch = int(chain[0].key.rpartition("_")[2].partition(".")[0])
    return Run(
        id=f"{replset}/{chain[0].start.key}/{epoch}",
        replset=replset,
        start=chain[0].start,
        end=last.end,
        end_term=last.end_term,
        covered_until=max(last.end, covered.get(last.key, last.end)),
        last_sha256=last.sha256,
        last_key=last.key,
        slices=len(chain),
        size_bytes=sum(ref.size_bytes for ref in chain),
        epoch=0,
    )


def _gap(
    before: Run,
    after: Run,
    first: SliceRef,
    restores: Sequence[int],
    reshaped: GapCause | None,
) -> Gap:
    """Storage tells that something is missing, or that a restore came between; of other causes it
    tells only that a new run was begun."""
    if any(before.end.T <= at <= after.start.T for at in restores):
        cause, words = GapCause.RESTORE, "restored in between"
    elif reshaped is not None:
        cause, words = reshaped, "no backup before it reaches past it"
    elif first.previous_sha256 is not None:
        cause, words = GapCause.BROKEN, f"the slice that {first.key} continues is missing"
    else:
        cause, words = GapCause.UNKNOWN, "a new run was begun; why is not kept on the storage"
    return Gap(
        replset=before.replset, start=before.span.end, end=after.start, cause=cause, message=words
    )


async def _slices_of_backups(storage: Storage) -> set[str]:
    """The slices that any backup names, published or not."""
    names = {backup_of_key(item.key) async for item in storage.list("backups/")}
    found: set[str] = set()
    for name in sorted(filter(None, names)):
        found |= (await inventory_of(storage, name)).slices
    return found


async def _restores(storage: Storage, replset: str) -> list[int]:
    """When restores of this replica set were asked for and when they began, in seconds."""
    found = {restore_moment_of(item.key, replset) async for item in storage.list("restores/")}
    return sorted(at for at in found if at is not None)
