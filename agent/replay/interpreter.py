"""From the plain bytes of slices to what has to be done on the target, in order.

Two things come out: writes, each an operation for `applyOps` and a number that is the same for all
writes of one document (so that several workers keep each document's order), and barriers, commands
that have to run after everything before them and before everything after them. A barrier counts as
carried out when the next item is asked for.

    position ≤ applied_until       only the catalogue and open transactions are rebuilt
    visible ≤ what the base holds  left out
    position > until               left out, but for the commit of a transaction prepared before it
                                   that is visible at or before it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import bson

from agent.errors import IntegrityError, RestoreFailed
from agent.replay.catalogue import Catalogue, Collection
from agent.replay.commands import TRANSACTIONAL, Command, Commands, Effect, creation
from agent.replay.entries import (
    COMMAND,
    DELETE,
    NOOP,
    UPDATE,
    Entry,
    command_name,
    entries,
    id_document,
    id_hash,
    id_key,
)
from agent.replay.resumption import Resumption
from agent.replay.transactions import Committed, TransactionKey, Transactions, nested
from agent.replay.zeros import may_hold_empty, restoring
from agent.wire.optime import OpTime

_TRANSACTIONAL: Final = frozenset(name.encode() for name in TRANSACTIONAL)
_COMMIT: Final = b"commitTransaction"

Write = tuple[int | None, bytes, bool]
"""Route (None: alone, as a barrier), operation, and whether it may meet a document that is newer
than it, or gone."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """Commands of one entry, and its packed OpTime."""

    commands: tuple[Command, ...]
    position: int


@dataclass(frozen=True, slots=True)
class Span:
    """Packed OpTimes that bound a replay."""

    catalogue_at: int
    """The catalogue of the base is exact at this OpTime."""
    until: int
    """Inclusive."""
    applied_until: int = 0
    """Everything at or before it is on the target already."""


class Interpreter:
    """Feed it the slices' bytes in order."""

    def __init__(
        self,
        catalogue: Catalogue,
        span: Span,
        *,
        transactions: Transactions,
        resumption: Resumption | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._by_uuid = catalogue.by_uuid
        self._scope = catalogue.scope
        self._span = span
        self._commands = Commands(catalogue, catalogue.scope)
        self._transactions = transactions
        self._resumption = resumption
        self._is_writing = False
        self._seen = 0
        self._first_view: Collection | None = None
        """A collection that has to be created before the write that comes next."""
        self._foreign: set[bytes] = set()
        """UUIDs of collections that are not wanted."""
        self.position = 0
        """The packed OpTime of the last entry taken in, at or before `until`."""
        self.is_done = False
        """Whether everything up to `until` has come by."""
        self.applied = 0
        self.skipped = 0

    def interpret(self, data: bytes) -> Iterator[Write | Barrier]:
        """What the entries in `data` ask for."""
        applied_until, until = self._span.applied_until, self._span.until
        for entry in entries(data):
            position = entry.ts
            if position <= self.position:
                continue  # slices of different agents may overlap
            if position > until:
                if not self._transactions.prepared:
                    self.is_done = True
                    return
                yield from self._after_the_end(entry)
                continue
            if position > applied_until and not self._is_writing:
                self._begin_writing()
            if entry.op == COMMAND:
                yield from self._command(entry, position, position)
            elif entry.op != NOOP and self._is_writing:
                yield from self._writes(entry, position, position)
            self.position = position

    def undecided(self) -> dict[TransactionKey, OpTime]:
        """After all slices: transactions that are prepared and not decided, with where."""
        return self._transactions.undecided()

    def settle(self, decided: Mapping[TransactionKey, int | None]) -> Iterator[Write | Barrier]:
        """What decisions that were found elsewhere ask for, in the order of the commits: when a
        transaction commits, or None where it aborts."""
        until = self._span.until
        for key, at in sorted(decided.items(), key=lambda item: item[1] or 0):
            is_visible = at is not None and at <= until
            committed = self._transactions.decide(key, at if is_visible else None)
            if committed is not None:
                if not self._is_writing:
                    self._begin_writing()
                yield from self._commit(committed, until)

    def finish(self) -> list[str]:
        """All slices have been fed. Answers what is worth a warning."""
        if not self._is_writing:
            self._begin_writing()
        self._end_resumption()
        undecided = self._transactions.prepared
        self._transactions.close()
        if not undecided:
            return []
        return [
            f"{undecided} transactions were prepared and neither committed nor aborted at "
            f"{OpTime.unpack(self._span.until)}; they were left out"
        ]

    def _begin_writing(self) -> None:
        self._is_writing = True
        if self._resumption is not None:
            self._resumption.begin()

    def _end_resumption(self) -> None:
        if self._resumption is not None:
            self._resumption.end()
            self._resumption = None

    def _writes(self, entry: Entry, visible_at: int, position: int) -> Iterator[Write | Barrier]:
        write = self._write(entry, visible_at)
        if write is None:
            return
        if self._first_view is not None:
            yield self._views_collection(position)
        yield write
        if may_hold_empty(entry.data, entry.body_at, entry.end_at) and entry.op != DELETE:
            put_back = restoring(entry.data, entry.o_at)
            if put_back is not None:
                route, _, is_lenient = write
                yield route, self._by_uuid[entry.ui].operation(UPDATE, put_back), is_lenient

    def _write(self, entry: Entry, visible_at: int) -> Write | None:
        collection = self._by_uuid.get(entry.ui)
        if collection is None:
            self._check_foreign(entry, visible_at)
            return None
        if visible_at <= collection.ceiling and (
            visible_at <= collection.floor or collection.coverage.holds(id_key(entry), visible_at)
        ):
            self.skipped += 1
            return None
        if collection.is_missing or collection.is_ignored:
            self.skipped += 1
            return None
        if collection.is_views:
            return self._write_view(collection, entry)
        self.applied += 1
        document = collection.operation(entry.op, entry.body)
        route = hash(collection.uuid) if collection.is_serial else id_hash(entry)
        return route, document, self._is_lenient(collection)

    def _is_lenient(self, collection: Collection) -> bool:
        """Whether its documents may be newer than what is written to them, or gone."""
        return collection.is_lenient or self._resumption is not None

    def _check_foreign(self, entry: Entry, visible_at: int) -> None:
        """A write to a collection that the catalogue does not have: not wanted, or dropped before
        the catalogue was read, or something is wrong."""
        if entry.ui in self._foreign or visible_at <= self._span.catalogue_at:
            return
        namespace = entry.ns.decode()
        if self._scope.wants(entry.ui, namespace):
            raise RestoreFailed(
                f"the oplog writes to {namespace} at {OpTime.unpack(visible_at)}, and the backup "
                "does not hold that collection",
                hint="if the backup is a selective one, restore from a full one",
            )
        self._foreign.add(entry.ui)

    def _write_view(self, collection: Collection, entry: Entry) -> Write | None:
        """Documents of `system.views` are chosen one by one, and may get other names."""
        if not collection.is_filtered:
            self.applied += 1
            document = collection.operation(entry.op, entry.body)
            return None, document, self._is_lenient(collection)
        name = self._scope.view_name(id_document(entry).get("_id"))
        if name is None or (collection.is_lazy and entry.op == DELETE):
            return None
        if collection.is_lazy:
            self._first_view = collection
        operation: dict[str, object] = {}
        if entry.op == DELETE:
            operation = {"o": {"_id": name}}
        else:
            found = self._scope.view(entry.command())
            if found is None:
                raise RestoreFailed(f"the definition of the view {name} cannot be replayed")
            operation = {"o": found, "o2": {"_id": name}}
        self.applied += 1
        return None, collection.operation(entry.op, bson.encode(operation)[4:-1]), True

    def _views_collection(self, position: int) -> Barrier:
        collection, self._first_view = self._first_view, None
        assert collection is not None
        collection.is_lazy = False
        return Barrier((creation(collection),), position)

    def _command(self, entry: Entry, visible_at: int, position: int) -> Iterator[Write | Barrier]:
        name = command_name(entry)
        if name in _TRANSACTIONAL:
            committed = self._transactions.feed(entry, name)
            if committed is not None:
                yield from self._commit(committed, position)
            return
        if visible_at <= self._span.catalogue_at:
            return
        resumption = self._resumption
        if resumption is not None and resumption.is_over(position):
            self._end_resumption()
            resumption = None
        commands = self._commands.interpret(entry)
        if not self._is_writing:
            return
        is_asked = bool(commands)
        if resumption is not None:
            if position <= resumption.marker:
                self._occupy(commands, resumption, entry)
                return
            # An entry that asks nothing of the target is not the one that may be half done. One
            # that is found done is a barrier all the same: it must be noted as done before the
            # next one is begun, or the next worker could doubt the wrong one.
            if is_asked:
                commands = resumption.left_to_do(position, commands)
        if is_asked:
            self.applied += 1
            yield Barrier(tuple(commands), position)
            self._place(commands, entry)

    def _occupy(self, commands: list[Command], resumption: Resumption, entry: Entry) -> None:
        for command in commands:
            if command.effect is Effect.CREATE:
                resumption.occupy(self._by_uuid[entry.ui])

    def _place(self, commands: list[Command], entry: Entry) -> None:
        for command in commands:
            if command.effect is Effect.RENAME:
                self._by_uuid[entry.ui].place(command.target_ns)

    def _commit(self, committed: Committed, position: int) -> Iterator[Write | Barrier]:
        visible_at = committed.visible_at
        if not committed.is_whole and visible_at > self._span.catalogue_at:
            raise IntegrityError(
                f"the transaction that commits at {OpTime.unpack(position)} begins before the "
                "first slice"
            )
        for operation in committed.operations():
            if operation.op == COMMAND:
                if command_name(operation) == b"applyOps":
                    yield from self._commit(nested(operation, visible_at), position)
                else:
                    yield from self._command(operation, visible_at, position)
            elif operation.op != NOOP and self._is_writing:
                yield from self._writes(operation, visible_at, position)

    def _after_the_end(self, entry: Entry) -> Iterator[Write | Barrier]:
        if entry.op != COMMAND:
            return
        name = command_name(entry)
        if name not in _TRANSACTIONAL or name == b"applyOps":
            return
        committed = self._transactions.feed(entry, name)
        if name == _COMMIT and committed and committed.visible_at <= self._span.until:
            if not self._is_writing:
                self._begin_writing()
            yield from self._commit(committed, self._span.until)
