"""What a person asked for, per kind of operation: the `spec` of an operation document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.wire.optime import OpTime
from agent.wire.record import Record


class BackupSpec(Record):
    """`ctl backup`. Empty lists mean everything."""

    type: Literal["logical"] = "logical"
    ns: tuple[str, ...] = ()
    exclude_ns: tuple[str, ...] = ()
    with_users_and_roles: bool = False
    compression: Literal["zstd", "none"] | None = None
    compression_level: int | None = None
    num_parallel_collections: int | None = None
    profile: str = "main"
    hold: str | None = None

    @property
    def is_selective(self) -> bool:
        """Whether only some namespaces are wanted."""
        return bool(self.ns or self.exclude_ns)


class RestoreSpec(Record):
    """`ctl restore`. `time` is inclusive; without it the backup is restored as of `last_write`."""

    backup: str
    time: OpTime | None = None
    ns: tuple[str, ...] = ()
    exclude_ns: tuple[str, ...] = ()
    ns_from: str | None = None
    ns_to: str | None = None
    with_users_and_roles: bool = False
    replset_remapping: dict[str, str] = Field(default_factory=dict)
    """`{replica set in the backup: replica set here}`."""
    num_parallel_collections: int | None = None
    num_insertion_workers: int | None = None
    index_commit_quorum: str | int | None = None
    dry_run: bool = False

    @property
    def is_selective(self) -> bool:
        """Whether only some namespaces are wanted."""
        return bool(self.ns or self.exclude_ns or self.ns_from)


class OplogReplaySpec(Record):
    """`ctl oplog-replay`: what happened in `(start, end]`, onto the data as it is."""

    start: OpTime
    end: OpTime
    replset_remapping: dict[str, str] = Field(default_factory=dict)


class DeleteBackupSpec(Record):
    """`ctl delete-backup`: the names that the client chose and showed."""

    names: tuple[str, ...]


class ResyncSpec(Record):
    """`ctl config --force-resync`."""

    include_restores: bool = False
