"""Which collections a span of the oplog writes to, for a replay onto what is there already.

A transaction counts from when it is visible, and whole: it may have begun before the span. One of
which the slices hold only the end cannot be replayed, and is found here, before anything is
applied.
"""

from __future__ import annotations

from typing import Final

from agent.errors import Refused
from agent.replay.commands import TRANSACTIONAL
from agent.replay.entries import COMMAND, NO_UUID, NOOP, Entry, command_name, entries
from agent.replay.transactions import Committed, Transactions, nested
from agent.wire.optime import OpTime

_TRANSACTIONAL: Final = frozenset(name.encode() for name in TRANSACTIONAL)


class Mentions:
    """Feed it slices in order, from before the span on."""

    def __init__(self, start: OpTime, end: OpTime) -> None:
        self._start, self._end = start.pack(), end.pack()
        self._transactions = Transactions()
        self._created: set[bytes] = set()
        self._names: dict[str, str] = {}

    def read(self, data: bytes) -> None:
        """Look through the entries in `data`. Raises `Refused`."""
        for entry in entries(data):
            if entry.ts > self._end:
                return
            if entry.op == COMMAND and command_name(entry) in _TRANSACTIONAL:
                committed = self._transactions.feed(entry, command_name(entry))
                if committed is not None:
                    self._commit(committed)
            elif entry.ts > self._start:
                self._mention(entry)

    def found(self) -> dict[str, str]:
        """After all slices: `{UUID: name when it was first mentioned}` of collections that the span
        did not create. What is prepared at the end may commit yet."""
        for key in self._transactions.undecided():
            committed = self._transactions.decide(key, self._end)
            if committed is not None:
                self._commit(committed)
        return self._names

    def close(self) -> None:
        """Let go of what is held back."""
        self._transactions.close()

    def _commit(self, committed: Committed) -> None:
        is_meant = committed.visible_at > self._start
        if is_meant and not committed.is_whole:
            raise Refused(
                f"a transaction that commits at {OpTime.unpack(committed.visible_at)} began before"
                " what is archived, and would be applied in part",
                hint="begin the span after it, or restore with 'ctl restore --time'",
            )
        for operation in committed.operations():
            if is_meant and operation.op == COMMAND and command_name(operation) == b"applyOps":
                self._commit(nested(operation, committed.visible_at))
            elif is_meant:
                self._mention(operation)

    def _mention(self, entry: Entry) -> None:
        if entry.op == COMMAND:
            if command_name(entry) == b"create":
                self._created.add(entry.ui)
        elif entry.op != NOOP and entry.ui != NO_UUID and entry.ui not in self._created:
            self._names.setdefault(entry.ui.hex(), entry.ns.decode())
