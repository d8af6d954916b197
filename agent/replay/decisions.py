"""What became of transactions that are prepared at the end of a replay.

A transaction over several shards is prepared on each of them, and then committed on each at one
timestamp, the greatest of its prepare timestamps. So at the moment `T` a restore goes to, every
shard has the prepare entry if any has the effect; but the entry that says `commitTransaction` comes
later, and it may lie after `T` on one shard and before it on another, or after the last entry that
was archived. What counts is the commit timestamp, which is the same wherever it is written:

    commit timestamp ≤ T      it is in the restore, on every shard
    commit timestamp > T      it is not, on any
    aborted, or undecided     it is not, on any

It is written in the `commitTransaction` entry of each participant, and before the first of these in
the coordinator's document in `config.transaction_coordinators`, which is durable before a client
learns that its transaction has committed. Any one of them, in the slices of any shard, decides for
all; every shard looks at the same slices, so all of them find the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.mongo.raw import Element, elements
from agent.replay.entries import COMMAND, INSERT, UPDATE, Entry, command_name, entries
from agent.replay.transactions import TransactionKey, key_of

_COORDINATORS: Final = b"config.transaction_coordinators"
_TELLING: Final = (_COORDINATORS, b"commitTransaction\0", b"abortTransaction\0")
_COMMIT: Final = b"commitTransaction"
_ABORT: Final = b"abortTransaction"


class Decisions:
    """Collects the decisions on some transactions; feed it slices in any order."""

    def __init__(self, wanted: Iterable[TransactionKey]) -> None:
        self._open = set(wanted)
        self.found: dict[TransactionKey, int | None] = {}
        """The packed commit timestamps of those that commit; None for those that abort."""

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing left to look for."""
        return not self._open

    @property
    def undecided(self) -> int:
        """How many are still looked for."""
        return len(self._open)

    def read(self, data: bytes) -> None:
        """Look through the entries in `data`."""
        # Most slices hold none of these: searching is a thousand times faster than walking.
        if not any(name in data for name in _TELLING):
            return
        for entry in entries(data):
            if entry.op == COMMAND:
                self._command(entry)
            elif entry.ns == _COORDINATORS and entry.op in (INSERT, UPDATE):
                self._coordinator(entry)

    def _command(self, entry: Entry) -> None:
        name = command_name(entry)
        if name not in (_COMMIT, _ABORT):
            return
        key = key_of(entry.data, entry.document_at)
        if key is None or key not in self._open:
            return
        command = _named(entry.data, entry.o_at)
        if name == _COMMIT and b"commitTimestamp" in command:
            self._note(key, _uint64(entry.data, command[b"commitTimestamp"]))
        elif name == _ABORT:
            self._note(key, None)

    def _coordinator(self, entry: Entry) -> None:
        data = entry.data
        body = _named(data, entry.o_at)
        if b"diff" in body:
            # With many participants the server logs what it added, not the whole document.
            added = _named(data, body[b"diff"].start)
            body = {}
            for part in (b"i", b"u"):
                if part in added:
                    body |= _named(data, added[part].start)
        if b"decision" not in body:
            return
        identity = _named(data, entry.o_at if entry.o2_at < 0 else entry.o2_at)[b"_id"]
        key = key_of(data, identity.start)
        if key is None or key not in self._open:
            return
        decision = _named(data, body[b"decision"].start)
        at = decision.get(b"commitTimestamp")
        self._note(key, None if at is None else _uint64(data, at))

    def _note(self, key: TransactionKey, at: int | None) -> None:
        self._open.discard(key)
        self.found[key] = at


def _named(data: bytes, at: int) -> dict[bytes, Element]:
    return {element.name: element for element in elements(data, at)}


def _uint64(data: bytes, element: Element) -> int:
    return int.from_bytes(data[element.start : element.end], "little")
