"""Where the documents of a sharded cluster belong, and whether that changed in a span.

In come the routing documents that a backup holds, and then the entries of the config servers'
oplog; out come the primary shard of each database, key and ranges of each sharded collection at
the end of the span, and what changed in it. Ranges that are only cut or joined change nothing:
neighbours of one owner count as one. What one entry, or one transaction, does to the table of
ranges is looked at as a whole: the ranges that it writes must have the owners that the ranges had
in their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

import bson
from bson.codec_options import CodecOptions, DatetimeConversion

from agent.replay.commands import TRANSACTIONAL
from agent.replay.entries import (
    COMMAND,
    DELETE,
    INSERT,
    UPDATE,
    Entry,
    command_name,
    entries,
    id_document,
)
from agent.replay.routing import is_users
from agent.replay.transactions import Committed, Transactions, nested
from agent.wire.namespaces import split
from agent.wire.optime import OpTime

Document = Mapping[str, Any]
Run = tuple[bytes, bytes, str]
"""`[low, high)`, bounds as BSON, and the shard that owns all between."""

DATABASES: Final = "config.databases"
COLLECTIONS: Final = "config.collections"
RANGES: Final = "config.chunks"
TABLES: Final = (DATABASES, COLLECTIONS, RANGES)
_ZONES: Final = "config.tags"
_SHARDS: Final = "config.shards"
_FOLLOWED: Final = frozenset(name.encode() for name in (*TABLES, _ZONES, _SHARDS))
_READ: Final = CodecOptions(
    document_class=dict, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_TRANSACTIONAL: Final = frozenset(name.encode() for name in TRANSACTIONAL)


@dataclass(frozen=True, slots=True)
class Range:
    """One document of `config.chunks`."""

    uuid: bytes
    low: bytes
    high: bytes
    shard: str


@dataclass(frozen=True, slots=True)
class Sharded:
    """One document of `config.collections`: the collection's UUID, and its shard key as BSON."""

    uuid: bytes
    key: bytes


class Distribution:
    """The routing tables at one moment."""

    def __init__(self) -> None:
        self.primaries: dict[str, str] = {}
        """The primary shard of each database."""
        self.collections: dict[str, Sharded] = {}
        """By namespace."""
        self.ranges: dict[Any, Range] = {}
        """By the `_id` of their documents."""

    def put(self, table: str, row: Document) -> None:
        """Take in a whole document of one of `TABLES`."""
        key = row["_id"]
        if table == DATABASES:
            self.primaries[key] = row["primary"]
        elif table == COLLECTIONS and not row.get("dropped"):
            self.collections[key] = Sharded(bytes(row["uuid"]), bson.encode(row["key"]))
        elif table == RANGES:
            low, high = bson.encode(row["min"]), bson.encode(row["max"])
            self.ranges[key] = Range(bytes(row["uuid"]), low, high, row["shard"])

    def alter(
        self, table: str, key: Any, fields: Document, parts: Mapping[str, Document] | None = None
    ) -> None:
        """Take in some fields of a document, and of others what changed within them (`parts`, as a
        `diff` has them). One that is not there was removed later on."""
        parts = parts or {}
        if table == DATABASES and key in self.primaries and "primary" in fields:
            self.primaries[key] = fields["primary"]
        elif table == COLLECTIONS and key in self.collections:
            known = self.collections[key]
            self.collections[key] = Sharded(
                bytes(fields.get("uuid", known.uuid)), _altered(known.key, "key", fields, parts)
            )
        elif table == RANGES and key in self.ranges:
            was = self.ranges[key]
            self.ranges[key] = Range(
                bytes(fields.get("uuid", was.uuid)),
                _altered(was.low, "min", fields, parts),
                _altered(was.high, "max", fields, parts),
                fields.get("shard", was.shard),
            )

    def remove(self, table: str, key: Any) -> None:
        """A document is gone."""
        held: dict[str, dict[Any, Any]] = {
            DATABASES: self.primaries,
            COLLECTIONS: self.collections,
            RANGES: self.ranges,
        }
        held[table].pop(key, None)

    def runs(self) -> dict[str, set[Run]]:
        """Of each sharded collection, by namespace."""
        by_uuid: dict[bytes, list[Range]] = {}
        for found in self.ranges.values():
            by_uuid.setdefault(found.uuid, []).append(found)
        return {ns: runs(by_uuid.get(one.uuid, ())) for ns, one in self.collections.items()}


def runs(ranges: Iterable[Range]) -> set[Run]:
    """Ranges of one collection, neighbours of one owner in one."""
    by_low = {one.low: one for one in ranges}
    by_high = {one.high: one for one in by_low.values()}
    found: set[Run] = set()
    for first in by_low.values():
        before = by_high.get(first.low)
        if before is not None and before.shard == first.shard:
            continue
        last = first
        while (after := by_low.get(last.high)) is not None and after.shard == first.shard:
            last = after
        found.add((first.low, last.high, first.shard))
    return found


class Followed:
    """Follows the routing tables through the config servers' oplog; feed it slices in order."""

    def __init__(
        self, distribution: Distribution, since: OpTime, until: OpTime, shards: Iterable[str]
    ) -> None:
        self.distribution = distribution
        self.change: str | None = None
        """The first thing in the span that a replay onto live data cannot bring along."""
        self.has_new_zones = False
        """Whether zones were changed in the span."""
        self.new_databases: set[str] = set()
        """Those that were created in the span."""
        self._since, self._until = since.pack(), until.pack()
        self._shards = set(shards)
        self._transactions = Transactions()

    def read(self, data: bytes) -> None:
        """Look through the entries in `data`."""
        for entry in entries(data):
            if entry.ts > self._until:
                return
            if entry.op != COMMAND:
                self._take([entry], entry.ts)
            elif command_name(entry) in _TRANSACTIONAL:
                committed = self._transactions.feed(entry, command_name(entry))
                if committed is not None:
                    self._take(_unfolded(committed), entry.ts)

    def close(self) -> None:
        """Let go of what is held back."""
        self._transactions.close()

    def _take(self, operations: Iterable[Entry], at: int) -> None:
        """What takes effect at once."""
        found = [
            one for one in operations if one.ns in _FOLLOWED and one.op in (INSERT, UPDATE, DELETE)
        ]
        if not found:
            return
        if at <= self._since:
            for one in found:
                self._apply(one)
            return
        named = {table: [_key(o) for o in found if o.ns.decode() == table] for table in TABLES}
        before = _Glimpse.of(self.distribution, named)
        for one in found:
            self._apply(one)
            self._look_aside(one, at)
        after = _Glimpse.of(self.distribution, named)
        self.new_databases |= after.primaries.keys() - before.primaries.keys()
        self._note(before.difference(after), at)

    def _apply(self, entry: Entry) -> None:
        table = entry.ns.decode()
        if table not in TABLES:
            return
        if entry.op == DELETE:
            self.distribution.remove(table, _key(entry))
            return
        body = _decoded(entry)
        if entry.op == INSERT or "_id" in body:
            self.distribution.put(table, body)
            return
        changed = body.get("diff", {})
        fields = {**changed.get("u", {}), **changed.get("i", {})}
        # Where it is shorter, the server writes what changed within a field: `s` and its name.
        parts = {name[1:]: part for name, part in changed.items() if name[0] == "s"}
        self.distribution.alter(table, _key(entry), fields, parts)

    def _look_aside(self, entry: Entry, at: int) -> None:
        table = entry.ns.decode()
        if table == _ZONES:
            self.has_new_zones = True
        elif table == _SHARDS and entry.op == INSERT and _key(entry) not in self._shards:
            self._note(f"the shard {_key(entry)} was added", at)

    def _note(self, words: str | None, at: int) -> None:
        if words is not None and self.change is None:
            self.change = f"{words} at {OpTime.unpack(at).in_words()}"


@dataclass(frozen=True, slots=True)
class _Glimpse:
    """What one step touches, as it is before or after it."""

    primaries: Mapping[str, str]
    collections: Mapping[str, Sharded]
    names: Mapping[bytes, str]
    """All sharded collections of the users, by UUID."""
    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, distribution: Distribution, named: Mapping[str, list[Any]]) -> _Glimpse:
        known = distribution
        touched = [known.ranges[key] for key in set(named[RANGES]) if key in known.ranges]
        wanted = {one.uuid for one in touched}
        return cls(
            {n: known.primaries[n] for n in named[DATABASES] if n in known.primaries},
            {n: known.collections[n] for n in named[COLLECTIONS] if n in known.collections},
            {
                one.uuid: ns
                for ns, one in (known.collections.items() if wanted else ())
                if one.uuid in wanted and is_users(ns)
            },
            tuple(touched),
        )

    def difference(self, after: _Glimpse) -> str | None:
        """What happened, in words; None where documents belong where they did."""
        for name, primary in self.primaries.items():
            if name not in after.primaries:
                return f"the database {name} was dropped"
            if after.primaries[name] != primary:
                return f"the database {name} got the primary shard {after.primaries[name]}"
        for ns in filter(is_users, {**self.collections, **after.collections}):
            was, became = self.collections.get(ns), after.collections.get(ns)
            if was is None:
                return f"{ns} was sharded, or renamed so"
            if became is None or became.uuid != was.uuid:
                return f"the sharded collection {ns} was dropped, renamed or created anew"
            if became.key != was.key:
                return f"the shard key of {ns} was changed"
        return self._moved(after)

    def _moved(self, after: _Glimpse) -> str | None:
        # Only of collections that are there before and after: ranges of others are their own
        # beginning and end.
        for uuid in self.names.keys() & after.names.keys():
            old = runs(one for one in self.ranges if one.uuid == uuid)
            new = runs(one for one in after.ranges if one.uuid == uuid)
            if old != new:
                gained = _owners(new) - _owners(old) or _owners(new - old)
                return f"a range of {self.names[uuid]} moved (to {' or '.join(sorted(gained))})"
        return None


def difference(archived: Distribution, here: Distribution, shards: Mapping[str, str]) -> str | None:
    """Where the tables here give a document to another shard than the archived ones do, in words;
    None where they agree. `shards` is `{name of a shard there: its name here}`."""
    for name, primary in archived.primaries.items():
        if not is_users(name):
            continue
        wanted = shards.get(primary, primary)
        if name not in here.primaries:
            return f"the database {name}, with the primary shard {wanted}, is not here"
        if here.primaries[name] != wanted:
            return (
                f"the primary shard of the database {name} is {here.primaries[name]} here and was"
                f" {wanted}"
            )
    there = {ns: one for ns, one in archived.collections.items() if is_users(ns)}
    for ns in here.collections:
        if split(ns)[0] in archived.primaries and is_users(ns) and ns not in there:
            return f"{ns} is sharded here and was not"
    runs_there, runs_here = archived.runs(), here.runs()
    for ns, one in there.items():
        if ns not in here.collections:
            return f"{ns} was sharded and is not here"
        if here.collections[ns].key != one.key:
            return f"the shard key of {ns} is another one here"
        mapped = {(low, high, shards.get(shard, shard)) for low, high, shard in runs_there[ns]}
        if mapped != runs_here[ns]:
            return f"ranges of {ns} belong to other shards here"
    return None


def _altered(was: bytes, name: str, fields: Document, parts: Mapping[str, Document]) -> bytes:
    """A field that is a document, as BSON, after a change."""
    if name in fields:
        return bson.encode(fields[name])
    if name not in parts:
        return was
    part = parts[name]
    kept = {k: v for k, v in bson.decode(was, _READ).items() if k not in part.get("d", {})}
    return bson.encode({**kept, **part.get("u", {}), **part.get("i", {})})


def _owners(found: Set[Run]) -> set[str]:
    return {shard for _, _, shard in found}


def _unfolded(committed: Committed) -> Iterator[Entry]:
    for operation in committed.operations():
        if operation.op == COMMAND and command_name(operation) == b"applyOps":
            yield from _unfolded(nested(operation, committed.visible_at))
        else:
            yield operation


def _key(entry: Entry) -> Any:
    return bson.decode(id_document(entry).raw, _READ)["_id"]


def _decoded(entry: Entry) -> dict[str, Any]:
    return bson.decode(entry.command().raw, _READ)
