"""Looking at every object that a backup or a range of archived oplog needs.

Out comes a verdict: what is harmed is a finding, not an error. Only a storage that does not answer
ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from agent.archive.manifest import ChunkObject, SliceRef
from agent.errors import IntegrityError, KeyUnusable
from agent.operations.authenticity import check_in_clear
from agent.operations.backup.secrecy import unsealed
from agent.operations.chains import chains
from agent.operations.inventory import read_document, read_manifest
from agent.operations.proof import prove_present, prove_read
from agent.operations.slices import described_refs, listed_slices
from agent.operations.verification.ledger import Ledger
from agent.storage.base import Storage
from agent.tasks import TaskGroup
from agent.wire.timelines import Run, Span
from agent.wire.verdicts import MAX_PROBLEMS, Level, Verdict

READERS: Final = 8


@dataclass(slots=True)
class Tally:
    """What was looked at so far, and what was found wrong: `{object or collection: sentence}`."""

    objects: int = 0
    bytes_read: int = 0
    remembered: int = 0
    """Not read again, since an earlier verification did."""
    problems: dict[str, str] = field(default_factory=dict)

    def verdict(self, level: Level) -> Verdict:
        """As the catalogue keeps it."""
        return Verdict(
            level=level,
            objects=self.objects,
            bytes_read=self.bytes_read,
            problems=tuple(list(self.problems.values())[:MAX_PROBLEMS]),
            harmed=len(self.problems),
        )


@dataclass(slots=True)
class Checker:
    """One verification of one storage. `on_step` is told the size of each object that was looked
    at, and may raise to end."""

    storage: Storage
    ledger: Ledger
    deep: bool
    on_step: Callable[[int], None]
    settle_s: float = 3.0
    """How long the list of the storage is given to show what seems to be missing."""

    async def backup(self, name: str) -> Tally:
        """Everything one published backup needs."""
        tally = Tally()
        try:
            document = await read_document(self.storage, name)
            if document is None:
                raise IntegrityError(
                    f"backups/{name}/backup.json is missing from {self.storage.address}"
                )
            backup, data = document
            await check_in_clear(self.storage, backup, data)
            await unsealed(self.storage, backup, data)
        except (IntegrityError, KeyUnusable) as error:
            tally.problems[name] = str(error)
            return tally
        tally.objects += 1
        for share in backup.replsets:
            try:
                manifest = await read_manifest(
                    self.storage, share.manifest_key, share.manifest_sha256
                )
            except IntegrityError as error:
                tally.problems[share.manifest_key] = str(error)
                continue
            tally.objects += 1
            await self._objects([*manifest.objects, *manifest.slices], tally)
        return tally

    async def _objects(self, items: Sequence[ChunkObject | SliceRef], tally: Tally) -> None:
        remaining = iter(items)

        async def look() -> None:
            for item in remaining:
                try:
                    await self._object(item, tally)
                except IntegrityError as error:
                    tally.problems[item.key] = str(error)
                self.on_step(item.size_bytes)

        async with TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(look())

    async def _object(self, item: ChunkObject | SliceRef, tally: Tally) -> None:
        tally.objects += 1
        if not self.deep:
            await prove_present(self.storage, item)
        elif self.ledger.is_proven(item.key, item.sha256):
            await prove_present(self.storage, item)
            tally.remembered += 1
        else:
            await prove_read(self.storage, item)
            tally.bytes_read += item.size_bytes
            self.ledger.add(item.key, item.sha256)

    async def archived(self, replset: str, runs: Iterable[Run]) -> tuple[Tally, list[Span]]:
        """The slices of these runs of one replica set, and the spans that cannot be restored to
        although the control database says so.

        A slice is proven by the one that follows it, which names its digest, and the last one of a
        run by the run itself.
        """
        tally, lost = Tally(), list[Span]()
        known = list(runs)
        found = await self._chains(replset, known)
        if not all(_is_whole(run, found) for run in known):
            await asyncio.sleep(self.settle_s)
            found = await self._chains(replset, known)
        for run in known:
            if run.last_sha256 is None:
                continue
            chain = _chain_of(run, found)
            end = chain[-1].end if chain else run.start
            if not _is_whole(run, found):
                lost.append(Span(start=end, end=run.end))
                tally.problems[run.id] = (
                    f"the slices of {replset} from {run.start} on end at {end} on "
                    f"{self.storage.address} and should reach {run.end}"
                )
            expected = [
                item.model_copy(update={"sha256": after.previous_sha256 or ""})
                for item, after in pairwise(chain)
            ]
            if chain and chain[-1].key == run.last_key:
                expected.append(chain[-1].model_copy(update={"sha256": run.last_sha256}))
            before = set(tally.problems)
            await self._objects(expected, tally)
            harmed = set(tally.problems) - before
            lost += [Span(start=one.start, end=run.end) for one in chain if one.key in harmed][:1]
        return tally, lost

    async def _chains(self, replset: str, runs: Sequence[Run]) -> list[list[SliceRef]]:
        listed = await listed_slices(self.storage, replset, [run.last_key for run in runs])
        return chains(await described_refs(self.storage, listed))


def _is_whole(run: Run, found: Sequence[list[SliceRef]]) -> bool:
    if run.last_sha256 is None:
        return True
    chain = _chain_of(run, found)
    return bool(chain) and chain[-1].end >= run.end


def _chain_of(run: Run, found: Sequence[list[SliceRef]]) -> list[SliceRef]:
    """The part of a chain that a run is made of. It may begin within one: a backup's own slices may
    come before it. Several may begin where the run does, when its first slice was stored by a
    writer that did not live to note it: the one that ends as the run does is meant, and where none
    does the one that reaches furthest."""
    candidates = [
        [one for one in chain[number:] if one.end <= run.end]
        for chain in found
        for number, ref in enumerate(chain)
        if ref.start == run.start
    ]
    whole = [chain for chain in candidates if chain]
    if not whole:
        return []
    return max(whole, key=lambda chain: (chain[-1].key == run.last_key, chain[-1].end))
