"""The journal of one replica set's part: durable progress, so that another agent goes on from it.

Entries are small objects that are never changed. The first says where the part began; each further
one names what became durable: finished units with their chunk objects, slices, collections that
vanished. Entries are written by one flusher, which takes all that has gathered while the entry
before it was being written, so that journalling never holds reading up and costs few requests.
A chunk that is durable but not journalled yet is read again by whoever resumes; its object is an
orphan that a sweep removes. Where storage is so slow that many gather, readers wait (`room`).

Whoever resumes begins with an entry that names the earlier entries it goes on from. A worker that
lost its lease without knowing it may still write entries of its own epoch; nobody accepted them, so
they count for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from agent.archive.codec import in_thread
from agent.archive.envelope import is_encrypted
from agent.archive.layout import journal_key, journal_prefix
from agent.archive.manifest import ChunkObject, CollectionEntry, SliceRef
from agent.archive.objects import get_json, put_json
from agent.archive.streaming import parse_rows
from agent.archive.vault import stored_name
from agent.errors import IntegrityError
from agent.faults import fault_point
from agent.storage.base import Storage
from agent.wire.optime import OpTime
from agent.wire.record import Record

MOST_AHEAD: Final = 8
"""How much of what is durable may wait for the entry before it to be written."""


class Begun(Record):
    """Where the part began. Whoever resumes keeps all of it."""

    first_write: OpTime
    catalogue_at: OpTime
    catalogue: tuple[CollectionEntry, ...]


class FinishedUnit(Record):
    """One finished unit of reading. `sequence` orders the ranges of a collection without comparing
    their bounds; bundles have none and name their collections in their segments."""

    uuid: str | None = None
    sequence: tuple[int, ...] = ()
    min: str | None = None
    max: str | None = None
    objects: tuple[ChunkObject, ...] = ()


class ArchivedSlice(Record):
    """One durable slice, and the collections dropped in it."""

    ref: SliceRef
    dropped: tuple[str, ...] = ()


class Entry(Record):
    """One journal object."""

    accepted: tuple[str, ...] | None = None
    """First entry of a worker that resumes: the keys of earlier epochs that it goes on from."""
    begun: Begun | None = None
    units: tuple[FinishedUnit, ...] = ()
    slices: tuple[ArchivedSlice, ...] = ()
    gone: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """What is stored, as JSON. Raises `ValueError`."""
        return cls.from_document(parse_rows(data.decode(), _LISTS))

    def public(self) -> Entry:
        """What may be read without a key: which objects there are."""
        units = tuple(
            FinishedUnit(objects=tuple(o.model_copy(update={"segments": ()}) for o in u.objects))
            for u in self.units
        )
        return Entry(units=units, slices=self.slices)


_LISTS: Final[Mapping[str, type[Record]]] = {
    "begun.catalogue": CollectionEntry,
    "units": FinishedUnit,
    "slices": ArchivedSlice,
}


@dataclass(slots=True)
class Progressed:
    """All that a journal says."""

    begun: Begun | None = None
    units: list[FinishedUnit] = field(default_factory=list)
    slices: list[ArchivedSlice] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Take one entry in."""
        self.begun = self.begun or entry.begun
        self.units += entry.units
        self.slices += entry.slices
        self.gone.update(entry.gone)


async def read_journal(storage: Storage, name: str, replset: str) -> Progressed:
    """What earlier workers of this part made durable. Raises `IntegrityError`."""
    entries: dict[str, Entry] = {}
    async for item in storage.list(journal_prefix(name, replset)):
        if stored_name(storage, item.key) != item.key and not is_encrypted(item.key):
            continue  # in clear, in a backup that is encrypted: nobody wrote it who may
        text = await get_json(storage, item.key)
        try:
            entries[item.key] = await in_thread(Entry.parse, text)
        except ValueError as error:
            raise IntegrityError(f"{item.key} is no journal entry: {error}") from error
    found = Progressed()
    for key in _valid_keys(entries):
        found.add(entries[key])
        found.keys.append(key)
    return found


def _valid_keys(entries: dict[str, Entry]) -> list[str]:
    """The entries of the newest epoch that has begun, and those it accepted, in order."""
    firsts = [k for k, e in entries.items() if e.begun is not None or e.accepted is not None]
    if not firsts:
        return []
    newest = max(firsts)
    accepted = list(entries[newest].accepted or ())
    missing = [key for key in accepted if key not in entries]
    if missing:
        raise IntegrityError(f"the journal entry {missing[0]} is missing")
    epoch = newest.rpartition("-")[0]
    return [*accepted, *_unbroken(sorted(k for k in entries if k.rpartition("-")[0] == epoch))]


def _unbroken(keys: list[str]) -> Iterator[str]:
    """The keys of an epoch up to the first number that was not seen: a zombie may have written
    that one behind a listing's back, and the next before its eyes."""
    for number, key in enumerate(keys):
        if int(key.rpartition("-")[2].partition(".")[0]) != number:
            return
        yield key


class Journal:
    """Writes entries under one epoch. `run` is the flusher; it ends after `close`."""

    def __init__(self, storage: Storage, name: str, replset: str, epoch: int) -> None:
        self._storage = storage
        self._name = name
        self._replset = replset
        self._epoch = epoch
        self._number = 0
        self._pending: list[Entry] = []
        self._wake = asyncio.Event()
        self._closed = False
        self._is_writing = False
        self._written = asyncio.Condition()

    def add(
        self,
        *,
        unit: FinishedUnit | None = None,
        archived: ArchivedSlice | None = None,
        gone: str | None = None,
    ) -> None:
        """Note something durable; it is written soon."""
        self._pending.append(
            Entry(
                units=(unit,) if unit else (),
                slices=(archived,) if archived else (),
                gone=(gone,) if gone else (),
            )
        )
        self._wake.set()

    async def room(self) -> None:
        """Wait while so much is durable and not written that a death would waste it."""
        async with self._written:
            await self._written.wait_for(lambda: len(self._pending) < MOST_AHEAD)

    async def begin(self, begun: Begun) -> None:
        """Write where the part begins, at once."""
        await self._write(Entry(begun=begun))

    async def resume(self, progressed: Progressed) -> None:
        """Write what this worker goes on from, at once."""
        await self._write(Entry(accepted=tuple(progressed.keys)))

    async def flush(self) -> None:
        """Wait until all that was added is written; `run` must be running."""
        self._wake.set()
        async with self._written:
            await self._written.wait_for(lambda: not self._pending and not self._is_writing)

    def close(self) -> None:
        """Let the flusher write the rest and end."""
        self._closed = True
        self._wake.set()

    async def run(self) -> None:
        """Write what is added, until closed."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            is_last = self._closed
            gathered, self._pending = self._pending, []
            if gathered:
                self._is_writing = True
                await self._write(
                    Entry(
                        units=tuple(unit for one in gathered for unit in one.units),
                        slices=tuple(archived for one in gathered for archived in one.slices),
                        gone=tuple(uuid for one in gathered for uuid in one.gone),
                    )
                )
                self._is_writing = False
            async with self._written:
                self._written.notify_all()
            if is_last:
                return

    async def _write(self, entry: Entry) -> None:
        key = journal_key(self._name, self._replset, self._epoch, self._number)
        self._number += 1
        name = stored_name(self._storage, key)
        public = entry.public().model_dump_json(exclude_none=True) if is_encrypted(name) else None
        text = entry.model_dump_json(exclude_none=True)
        await put_json(self._storage, name, text, public=public)
        await fault_point("snapshot.journal_written")
