"""The manifest of one replica set in a backup: its catalogue of collections and its chunk table.

Catalogue rows carry collection options and index specifications verbatim, as canonical Extended
JSON v2, so that a type (a 64-bit integer, a regular expression) survives. Chunk bounds are base64
of the BSON document `{"_id": bound}`: exact for every type, and compared by servers only.

There may be 100,000 collections, so rows keep once what many of them have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

from pydantic import Field

from agent.archive.layout import FORMAT_VERSION
from agent.archive.sharing import shared_bson, shared_document, shared_optime, shared_text
from agent.archive.streaming import parse_rows
from agent.wire.optime import OpTime
from agent.wire.record import Record

_GIVEN: set[str] = set()
_NO_OPTIONS: Final[dict[str, Any]] = {}


class Row(Record):
    """One of very many. Which of its fields were given is not remembered: that alone would take
    more room than all of them."""

    def model_post_init(self, _context: Any, /) -> None:
        """Let go of what nobody asks for, and share what others have too."""
        object.__setattr__(self, "__pydantic_fields_set__", _GIVEN)
        self._share(self.__dict__)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic has it."""
        copied = super().model_copy(update=update, deep=deep)
        object.__setattr__(copied, "__pydantic_fields_set__", _GIVEN)
        return copied

    def _share(self, fields: dict[str, Any]) -> None:
        """Replace values by equal ones that are kept already."""


class CollectionEntry(Row):
    """One collection as it was at the snapshot's OpTime."""

    ns: str
    uuid: str
    """32 hexadecimal characters."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Extended JSON, without the UUID."""
    indexes: tuple[dict[str, Any], ...] = ()
    """Extended JSON, ready ones only, `_id` included, clustered pseudo index not."""

    def _share(self, fields: dict[str, Any]) -> None:
        fields["uuid"] = shared_text(self.uuid)
        # Most have none, and there is nothing to look up then.
        fields["options"] = shared_document(self.options) if self.options else _NO_OPTIONS
        fields["indexes"] = shared_document(self.indexes)

    @property
    def is_capped(self) -> bool:
        """Whether natural order matters."""
        return bool(self.options.get("capped"))

    @property
    def is_clustered(self) -> bool:
        """Whether `_id` is the storage order (time series buckets are)."""
        return "clusteredIndex" in self.options

    def bson_options(self) -> dict[str, Any]:
        """Options as BSON values, which others share: they must not be changed."""
        return shared_bson(self.options)

    def bson_indexes(self) -> list[dict[str, Any]]:
        """Index specifications as BSON values, likewise."""
        return [shared_bson(spec) for spec in self.indexes]


class Segment(Row):
    """Documents of one collection inside a chunk object: `length` bytes of plain BSON from
    `offset` on. They lie in `[min, max)` of `_id`; absent bounds are open."""

    uuid: str
    offset: int = 0
    length: int
    count: int
    read_at: OpTime
    """The documents are those visible at this OpTime: replay skips every operation on them up to
    and including it."""
    is_fuzzy: bool = False
    """Read while writes went on (the server allows no snapshot there): each document is as of
    some moment from `read_at` on, and replay applies operations again."""
    min: str | None = None
    max: str | None = None

    def _share(self, fields: dict[str, Any]) -> None:
        fields["uuid"] = shared_text(self.uuid)
        fields["read_at"] = shared_optime(self.read_at)


class ChunkObject(Record):
    """One stored chunk object."""

    key: str
    size_bytes: int
    sha256: str
    plain_bytes: int
    segments: tuple[Segment, ...]
    key_id: str | None = None
    """The data key it is encrypted with."""

    @property
    def documents(self) -> int:
        """How many documents it holds."""
        return sum(segment.count for segment in self.segments)


class SliceRef(Record):
    """One oplog slice with the entries in `(start, end]`."""

    key: str
    size_bytes: int
    sha256: str
    plain_bytes: int
    count: int
    start: OpTime
    start_term: int
    end: OpTime
    end_term: int
    previous_sha256: str | None = None
    """Digest of the slice before it; None where a timeline begins."""
    commands: tuple[str, ...] = ()
    """Names of the commands in it, to know before a restore what replay will meet."""
    key_id: str | None = None
    """The data key it is encrypted with."""


class Manifest(Record):
    """Everything that restores one replica set."""

    format_version: int = FORMAT_VERSION
    backup: str
    op_id: str
    replset: str
    epoch: int
    first_write: OpTime
    catalogue_at: OpTime
    """The catalogue is exact at this OpTime: replay skips commands up to and including it."""
    read_end: OpTime
    last_write: OpTime
    catalogue: tuple[CollectionEntry, ...]
    objects: tuple[ChunkObject, ...]
    slices: tuple[SliceRef, ...]
    dropped: tuple[str, ...] = ()
    """UUIDs of collections that vanished while they were read; their drop is in the slices."""
    key_id: str | None = None
    """The data key it is encrypted with itself."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """What is stored, as JSON. Raises `ValueError`."""
        return cls.from_document(parse_rows(data.decode(), _LISTS))

    def public(self) -> Manifest:
        """What of it may be read without a key: which objects there are, no names, no bounds."""
        objects = tuple(o.model_copy(update={"segments": ()}) for o in self.objects)
        return self.model_copy(update={"catalogue": (), "objects": objects})

    @property
    def key_ids(self) -> set[str]:
        """The data keys that its objects are encrypted with."""
        chunks = {item.key_id for item in self.objects if item.key_id}
        own = {self.key_id} if self.key_id else set()
        return own | chunks | {item.key_id for item in self.slices if item.key_id}

    @property
    def documents(self) -> int:
        """Documents in chunks."""
        return sum(item.documents for item in self.objects)

    @property
    def stored_bytes(self) -> int:
        """Stored size of chunks and slices."""
        return sum(o.size_bytes for o in self.objects) + sum(s.size_bytes for s in self.slices)

    @property
    def plain_bytes(self) -> int:
        """Size of chunks and slices as BSON."""
        return sum(o.plain_bytes for o in self.objects) + sum(s.plain_bytes for s in self.slices)


_LISTS: Final[Mapping[str, type[Record]]] = {
    "catalogue": CollectionEntry,
    "objects": ChunkObject,
    "slices": SliceRef,
}
