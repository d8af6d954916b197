"""Transactions, held back until they commit.

    applyOps                                     commits at this entry
    applyOps partialTxn … applyOps count         commits at the last entry of the chain
    … applyOps prepare, then commitTransaction   visible from its commitTimestamp on
    … applyOps prepare, then abortTransaction    forgotten

Entries of one transaction are linked by `prevOpTime`; a chain whose head is not in the slices ended
before the base was read, or the slices do not hold what they should: the caller knows which. What
is held back is raw bytes, in a temporary file beyond a bound.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final

from agent.errors import IntegrityError
from agent.mongo.raw import Element, elements
from agent.replay.entries import Entry, count_operations, inner_operations
from agent.wire.optime import OpTime

MEMORY_BYTES: Final = 64 << 20

TransactionKey = tuple[bytes, int]
"""The session, as BSON, and the transaction's number in it: the same on every shard."""

_NO_PREVIOUS: Final = 0


class Spool:
    """Byte strings, in memory up to a bound and in an unnamed temporary file beyond it."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._free_bytes = memory_bytes
        self._file: IO[bytes] | None = None
        self._live = 0

    def put(self, data: bytes) -> Spooled:
        """Keep a byte string until it is let go."""
        self._live += 1
        if len(data) <= self._free_bytes:
            self._free_bytes -= len(data)
            return Spooled(self, data, 0, len(data))
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="tidelog-")  # noqa: SIM115 -- see close
        offset = self._file.seek(0, 2)
        self._file.write(data)
        return Spooled(self, None, offset, len(data))

    def read(self, offset: int, size: int) -> bytes:
        """Read back what lies in the file."""
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(size)

    def release(self, data: bytes | None) -> None:
        """Count one as gone; the file shrinks when all are."""
        self._live -= 1
        if data is not None:
            self._free_bytes += len(data)
        if self._live == 0 and self._file is not None:
            self._file.truncate(0)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class Spooled:
    """One byte string of a spool."""

    spool: Spool
    data: bytes | None
    offset: int
    size: int

    def get(self) -> bytes:
        """The bytes."""
        return self.spool.read(self.offset, self.size) if self.data is None else self.data

    def release(self) -> None:
        """Let it go."""
        self.spool.release(self.data)


@dataclass(slots=True)
class Pending:
    """A transaction that has begun and not ended."""

    begun_at: int
    last: int
    """Packed OpTimes of its first and newest entry."""
    is_whole: bool
    """Whether its first entry was seen."""
    is_prepared: bool = False
    parts: list[Spooled] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """A transaction that took effect. `arrays` yields its `applyOps` arrays in order."""

    visible_at: int
    is_whole: bool
    parts: tuple[Spooled, ...]
    last: bytes | None

    def operations(self) -> Iterator[Entry]:
        """Its operations in order; what was held back is let go as it is passed."""
        for part in self.parts:
            data = part.get()
            part.release()
            yield from inner_operations(data, 0)
        if self.last is not None:
            yield from inner_operations(self.last, 0)


def nested(entry: Entry, visible_at: int) -> Committed:
    """An `applyOps` inside a transaction, which takes effect with it."""
    found = _fields(entry.data, entry.o_at)[b"applyOps"]
    return Committed(visible_at, True, (), entry.data[found.start : found.end])


class Transactions:
    """All transactions that are open at the current place of the oplog."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._open: dict[TransactionKey, Pending] = {}
        self._spool = Spool(memory_bytes)

    @property
    def prepared(self) -> int:
        """How many wait for a decision."""
        return sum(1 for pending in self._open.values() if pending.is_prepared)

    def undecided(self) -> dict[TransactionKey, OpTime]:
        """Those that wait for a decision, with where they were prepared."""
        return {
            key: OpTime.unpack(pending.last)
            for key, pending in self._open.items()
            if pending.is_prepared
        }

    def decide(self, key: TransactionKey, visible_at: int | None) -> Committed | None:
        """What was found out elsewhere of a prepared one: when it commits, or (None) that it does
        not. Answers the transaction that takes effect."""
        pending = self._open.pop(key)
        if visible_at is None:
            _release(pending)
            return None
        return Committed(visible_at, pending.is_whole, tuple(pending.parts), None)

    @property
    def oldest(self) -> OpTime | None:
        """Where the oldest open one begins."""
        begun = [pending.begun_at for pending in self._open.values()]
        return OpTime.unpack(min(begun)) if begun else None

    def close(self) -> None:
        """Forget everything."""
        self._open.clear()
        self._spool.close()

    def feed(self, entry: Entry, name: bytes) -> Committed | None:
        """Take in an `applyOps`, `commitTransaction` or `abortTransaction` entry; answers the
        transaction that took effect by it."""
        # By lengths only: a transaction may be 16 MiB of small operations.
        fields = _fields(entry.data, entry.document_at)
        command = _fields(entry.data, entry.o_at)
        key = _key(entry.data, fields)
        if name == b"applyOps":
            return self._apply(entry, fields, command, key)
        pending = None if key is None else self._open.pop(key, None)
        if name == b"abortTransaction":
            _release(pending)
            return None
        decided = command.get(b"commitTimestamp")
        visible_at = entry.ts if decided is None else _uint64(entry.data, decided)
        if pending is None:
            return Committed(visible_at, is_whole=False, parts=(), last=None)
        return Committed(visible_at, pending.is_whole, tuple(pending.parts), None)

    def _apply(
        self, entry: Entry, fields: _Fields, command: _Fields, key: TransactionKey | None
    ) -> Committed | None:
        data = entry.data
        found = command[b"applyOps"]
        array = data[found.start : found.end]
        previous = _previous(data, fields)
        pending = self._continued(key, previous)
        is_part = _is_set(data, command, b"partialTxn")
        is_prepare = _is_set(data, command, b"prepare")
        # Beside transactions, commands and batches of retryable writes come as applyOps too: they
        # have no chain, whatever their prevOpTime says.
        is_chained = is_part or is_prepare or b"count" in command
        count = (0 if pending is None else pending.count) + count_operations(array)
        is_whole = pending.is_whole if pending else not (is_chained and previous != _NO_PREVIOUS)
        if b"count" in command and _integer(data, command[b"count"]) != count:
            is_whole = False
        if not is_part and not is_prepare:
            if key is not None:
                self._open.pop(key, None)
            parts = () if pending is None else tuple(pending.parts)
            return Committed(entry.ts, is_whole, parts, array)
        if key is None:
            raise IntegrityError("an oplog entry of a transaction names no session")
        if pending is None:
            pending = self._open[key] = Pending(entry.ts, entry.ts, is_whole)
        pending.is_whole = is_whole
        pending.parts.append(self._spool.put(array))
        pending.count = count
        pending.last = entry.ts
        pending.is_prepared = is_prepare
        return None

    def _continued(self, key: TransactionKey | None, previous: int) -> Pending | None:
        """The open chain that an entry goes on with. Another chain under the same key, or an older
        transaction of the session, was left unfinished by a primary that stepped down."""
        if key is None:
            return None
        pending = self._open.get(key)
        if pending is not None and pending.last == previous:
            return pending
        _release(self._open.pop(key, None))
        for other in [o for o in self._open if o[0] == key[0] and o[1] < key[1]]:
            _release(self._open.pop(other))
        return None


_Fields = dict[bytes, Element]


def _fields(data: bytes, at: int) -> _Fields:
    return {element.name: element for element in elements(data, at)}


def _release(pending: Pending | None) -> None:
    for part in pending.parts if pending is not None else ():
        part.release()


def key_of(data: bytes, at: int) -> TransactionKey | None:
    """The transaction that a document names, if it names one."""
    return _key(data, _fields(data, at))


def _key(data: bytes, fields: _Fields) -> TransactionKey | None:
    if b"lsid" not in fields or b"txnNumber" not in fields:
        return None
    lsid = fields[b"lsid"]
    return data[lsid.start : lsid.end], _integer(data, fields[b"txnNumber"])


def _previous(data: bytes, fields: _Fields) -> int:
    """The packed OpTime of the entry before it in its session."""
    if b"prevOpTime" not in fields:
        return _NO_PREVIOUS
    return _uint64(data, _fields(data, fields[b"prevOpTime"].start)[b"ts"])


def _uint64(data: bytes, element: Element) -> int:
    return int.from_bytes(data[element.start : element.end], "little")


def _integer(data: bytes, element: Element) -> int:
    """An integer of 32 or 64 bits."""
    return int.from_bytes(data[element.start : element.end], "little", signed=True)


def _is_set(data: bytes, fields: _Fields, name: bytes) -> bool:
    return name in fields and data[fields[name].start] != 0
