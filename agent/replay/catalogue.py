"""The collections of the target, as far as the entries have been replayed.

Each is known by its UUID at the source, which renames do not change. Beside its names it carries
what the hot path asks for every operation: what the base holds, the prefix of its `applyOps`
operations, and whether its writes must stay in one order as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from agent.errors import RestoreFailed
from agent.replay.coverage import NOTHING, Coverage
from agent.replay.entries import DELETE, INSERT, UPDATE
from agent.replay.indexing import Indexes
from agent.replay.scope import VIEWS, Scope
from agent.wire.namespaces import ROUTING, split

Options = dict[str, Any]

_length: Final = struct.Struct("<i").pack
NEVER_CREATED_WITH: Final = ("temp", "expireAfterSeconds")
"""Options left out while restoring: the server drops temporary collections when it becomes primary,
and deletes what has expired, both under our hands."""


class Collection:
    """One wanted collection. There may be 100,000: options and index specifications are shared
    with others, and are replaced, never changed."""

    __slots__ = (
        "_prefixes",
        "ceiling",
        "coverage",
        "floor",
        "indexes",
        "is_filtered",
        "is_ignored",
        "is_lazy",
        "is_lenient",
        "is_missing",
        "is_serial",
        "is_views",
        "ns",
        "options",
        "target_ns",
        "target_uuid",
        "uuid",
    )

    def __init__(
        self,
        uuid: bytes,
        ns: str,
        scope: Scope,
        *,
        options: Options,
        indexes: Indexes,
        coverage: Coverage = NOTHING,
    ) -> None:
        self.uuid = uuid
        self.ns = ns
        """Its name at the source now."""
        self.target_uuid = scope.target_uuid(uuid, ns)
        self.target_ns = scope.target_name(uuid, ns)
        self.options = options
        self.indexes = indexes
        self.coverage = coverage
        self.floor = coverage.floor
        self.ceiling = coverage.ceiling
        # The config servers write ranges by `applyOps` with upserts, and log them as they came.
        self.is_lenient = coverage.is_lenient or bool(options.get("capped")) or ns in ROUTING
        self.is_ignored = False
        """The backup does not hold it, because it was dropped while it was read: nothing is
        written to it until its drop comes by."""
        self.is_missing = False
        """Its drop was carried out already by a worker before this one."""
        is_views = split(ns)[1] == VIEWS
        self.is_serial = bool(options.get("capped")) or "collation" in options
        """Its order as a whole matters, or only the server knows which `_id`s are equal."""
        self.is_views = is_views
        """Each of its writes stands alone: the server keeps its views in memory too, and loses
        track of two changes in one transaction."""
        self.is_filtered = is_views and not scope.is_full
        """Its documents are chosen one by one."""
        self.is_lazy = self.is_filtered and self.target_uuid not in scope.views_on_target.values()
        """It is not there, and is created with the first wanted view."""
        self._prefixes: dict[int, bytes] = {}
        """Of operations, by their letter; made when it is first written to."""

    def place(self, target_ns: str) -> None:
        """Address operations to this name from now on."""
        self.target_ns = target_ns
        self._prefixes = {}

    def _made_prefixes(self) -> dict[int, bytes]:
        name = self.target_ns.encode()
        tail = b"\x02ns\0" + _length(len(name) + 1) + name + b"\0"
        tail += b"\x05ui\0\x10\0\0\0\x04" + self.target_uuid
        self._prefixes = {
            op: b"\x02op\0\x02\0\0\0" + bytes([op]) + b"\0" + tail
            for op in (INSERT, UPDATE, DELETE)
        }
        return self._prefixes

    def operation(self, op: int, body: bytes) -> bytes:
        """A write as an operation of `applyOps`; `body` holds the fields `o` and `o2`."""
        prefix = (self._prefixes or self._made_prefixes())[op]
        return _length(len(prefix) + len(body) + 5) + prefix + body + b"\0"

    @property
    def is_capped(self) -> bool:
        """Whether natural order matters."""
        return bool(self.options.get("capped"))

    @property
    def is_clustered(self) -> bool:
        """Whether `_id` is the storage order."""
        return "clusteredIndex" in self.options

    def creation(self) -> Options:
        """The options it is created with."""
        return {k: v for k, v in self.options.items() if k not in NEVER_CREATED_WITH}


class Catalogue:
    """All wanted collections."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._by_uuid: dict[bytes, Collection] = {}
        self._by_target_ns: dict[str, Collection] = {}

    def __iter__(self) -> Iterator[Collection]:
        return iter(list(self._by_uuid.values()))

    def __len__(self) -> int:
        return len(self._by_uuid)

    @property
    def by_uuid(self) -> Mapping[bytes, Collection]:
        """For the hot path: one look-up an operation."""
        return self._by_uuid

    def add(self, collection: Collection) -> None:
        """Take in a collection that was created."""
        taken = self._by_target_ns.get(collection.target_ns)
        if taken is not None and taken is not collection:
            raise RestoreFailed(
                f"the oplog creates {collection.ns} where {taken.ns} is: the backup's catalogue "
                "and its oplog do not fit"
            )
        self._by_uuid[collection.uuid] = collection
        self._by_target_ns[collection.target_ns] = collection

    def remove(self, uuid: bytes) -> Collection | None:
        """Forget a collection that was dropped."""
        found = self._by_uuid.pop(uuid, None)
        if found is not None:
            self._by_target_ns.pop(self.scope.target_name(uuid, found.ns), None)
        return found

    def rename(self, collection: Collection, ns: str) -> str:
        """Give a collection its new name at the source; answers the one on the target."""
        self._by_target_ns.pop(self.scope.target_name(collection.uuid, collection.ns), None)
        collection.ns = ns
        target = self.scope.target_name(collection.uuid, ns)
        self._by_target_ns[target] = collection
        return target

    def in_database(self, database: str) -> list[Collection]:
        """The collections of one database at the source."""
        return [c for c in self._by_uuid.values() if split(c.ns)[0] == database]

    def settle(self) -> None:
        """Address every collection by the name it should have now."""
        for collection in self._by_uuid.values():
            wanted = self.scope.target_name(collection.uuid, collection.ns)
            if collection.target_ns != wanted:
                collection.place(wanted)

    def ignore(self, uuids: Iterable[bytes]) -> None:
        """Write nothing to these."""
        for uuid in uuids:
            if uuid in self._by_uuid:
                self._by_uuid[uuid].is_ignored = True
