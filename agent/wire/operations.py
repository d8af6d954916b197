"""Operations: what agents carry out. One document each is the truth; one table says how it moves.

    requested → electing → preparing → running → publishing → done
         any state before publishing → cancelled          any state that is not terminal → failed

A part is the share of one replica set. It moves through the same states; a takeover (its worker
died) moves it back to `preparing` with a higher epoch. What is already durable in each state, and
what an agent does that finds it:

    requested    nothing                          the lead chooses the parts
    electing     the parts                        each replica set elects a worker for its part
    preparing    the workers, per part            workers check what they need
    running      chunks, slices, journal          workers go on from the journal
    publishing   every object but backup.json     the lead writes backup.json and the catalogue
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.record import Record

SCRATCH: Final = "scratch"
"""Feature of an agent that may start a server of its own on its host."""
EXPORTS: Final = "exports"
"""Feature of one that may write exports there, too."""


class State(StrEnum):
    """Where an operation or a part stands."""

    REQUESTED = "requested"
    ELECTING = "electing"
    PREPARING = "preparing"
    RUNNING = "running"
    PUBLISHING = "publishing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Nothing more will happen."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({State.DONE, State.FAILED, State.CANCELLED})

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.REQUESTED: frozenset({State.ELECTING, State.FAILED, State.CANCELLED}),
    State.ELECTING: frozenset({State.PREPARING, State.FAILED, State.CANCELLED}),
    State.PREPARING: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.PUBLISHING, State.FAILED, State.CANCELLED}),
    State.PUBLISHING: frozenset({State.DONE, State.FAILED}),
    State.DONE: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


def may_move(before: State, after: State) -> bool:
    """Whether the table allows this change."""
    return after in TRANSITIONS[before]


class Kind(StrEnum):
    """What an operation does."""

    BACKUP = "backup"
    RESTORE = "restore"
    OPLOG_REPLAY = "oplog-replay"
    DELETE_BACKUP = "delete-backup"
    DELETE_PITR = "delete-pitr"
    CLEANUP = "cleanup"
    HOLD = "hold"
    RESYNC = "resync"
    ADOPT = "adopt"
    ENCRYPTION = "encryption"
    VERIFY = "verify"
    PROVE = "prove"
    """`ctl verify --restore`."""
    EXPORT = "export"
    UNKNOWN = "unknown"
    """Of a newer version: refused with a reason if nobody else takes it on."""

    @classmethod
    def _missing_(cls, value: object) -> Kind:
        return cls.UNKNOWN

    @property
    def writes_data(self) -> bool:
        """It changes the users' data: only primaries do it, and what is archived afterwards is
        another timeline."""
        return self in (Kind.RESTORE, Kind.OPLOG_REPLAY)

    @property
    def needed_feature(self) -> str | None:
        """Only agents that announce it can do it."""
        return _NEEDS.get(self)

    @property
    def removes(self) -> bool:
        """It removes what is stored: what others read at that time stays."""
        return self in (Kind.DELETE_BACKUP, Kind.DELETE_PITR, Kind.CLEANUP)

    @property
    def is_exclusive(self) -> bool:
        """At most one operation of the exclusive kinds exists that is not terminal."""
        return self in _EXCLUSIVE

    @property
    def may_queue(self) -> bool:
        """Whether `ctl` offers `--queue` for it."""
        return self in (Kind.BACKUP, Kind.RESTORE)

    @property
    def only_reads(self) -> bool:
        """It reads what is stored, for as long as that takes, and changes none of it: any live
        agent may do it, beside backups and deletions, one such operation at a time."""
        return self in _READING


_READING: Final = (Kind.VERIFY, Kind.PROVE, Kind.EXPORT)
_NEEDS: Final = {Kind.PROVE: SCRATCH, Kind.EXPORT: EXPORTS}
_EXCLUSIVE: Final = (
    Kind.BACKUP,
    Kind.RESTORE,
    Kind.OPLOG_REPLAY,
    Kind.RESYNC,
    Kind.ENCRYPTION,
)


class ErrorRecord(Record):
    """Why something ended badly."""

    type: str
    message: str
    hint: str = ""
    node: str | None = None


class Progress(Record):
    """How far a part is. Sizes in bytes of BSON, totals estimated."""

    stage: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    documents_done: int = 0
    documents_total: int = 0


class Part(Record):
    """One replica set's share of an operation. `result` is of the kind's own shape."""

    replset: str
    state: State = State.REQUESTED
    node: str | None = None
    epoch: int = 0
    attempts: int = 0
    progress: Progress = Progress()
    result: dict[str, Any] = Field(default_factory=dict)
    error: ErrorRecord | None = None


class HistoryEntry(Record):
    """One change of an operation or a part, in server time."""

    at: datetime
    state: str
    node: str | None = None
    epoch: int = 0
    replset: str | None = None
    note: str | None = None


class Operation(Record):
    """One operation. `slot` is there only while an exclusive operation is not terminal and not
    queued: a unique sparse index on it lets only one exist."""

    id: str = Field(alias="_id")
    schema_version: int = SCHEMA_VERSION
    kind: Kind
    name: str
    spec: dict[str, Any] = Field(default_factory=dict)
    state: State = State.REQUESTED
    slot: str | None = None
    queued: bool = False
    requested_at: datetime
    requested_by: str = ""
    updated_at: datetime | None = None
    finished_at: datetime | None = None
    settings_version: int | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    """The settings it began with; whoever works on it works with these."""
    lead_node: str | None = None
    lead_epoch: int = 0
    attempts: int = 0
    """How many leads have taken it on."""
    parts: tuple[Part, ...] = ()
    result: dict[str, Any] = Field(default_factory=dict)
    error: ErrorRecord | None = None
    cancel_requested: bool = False
    history: tuple[HistoryEntry, ...] = ()

    def part(self, replset: str) -> Part | None:
        """The share of one replica set."""
        return next((part for part in self.parts if part.replset == replset), None)


def whole_progress(parts: tuple[Part, ...]) -> Progress:
    """The sum over the parts."""
    return Progress(
        stage=", ".join(sorted({p.progress.stage for p in parts if p.progress.stage})),
        bytes_done=sum(p.progress.bytes_done for p in parts),
        bytes_total=sum(p.progress.bytes_total for p in parts),
        documents_done=sum(p.progress.documents_done for p in parts),
        documents_total=sum(p.progress.documents_total for p in parts),
    )
