"""What a person asked for, per kind of operation: the `spec` of an operation document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.wire.compression import CompressionLevel
from agent.wire.optime import OpTime
from agent.wire.record import Record


class BackupSpec(Record):
    """`ctl backup`. Empty lists mean everything."""

    type: Literal["logical"] = "logical"
    ns: tuple[str, ...] = ()
    exclude_ns: tuple[str, ...] = ()
    with_users_and_roles: bool = False
    compression: Literal["zstd", "none"] | None = None
    compression_level: CompressionLevel | None = None
    num_parallel_collections: int | None = None
    profile: str = "main"
    profiles: tuple[str, ...] | None = None
    """Several storages, each of which gets a copy; wins over `profile`."""
    hold: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """The profiles that it is written to, each once."""
        return tuple(dict.fromkeys(self.profiles or (self.profile,)))

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
    profile: str | None = None
    """Where to take the backup from; without it from any storage that has it and answers."""
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
    dry_run: bool = False


class DeleteBackupSpec(Record):
    """`ctl delete-backup`: the names that the client chose and showed. The agents look again:
    with `older_than`, what has to stay by now stays; else it refuses the whole."""

    names: tuple[str, ...]
    profile: str | None = None
    """Only the copies there; without it all of them."""
    older_than: OpTime | None = None


class DeletePitrSpec(Record):
    """`ctl delete-pitr`: slices of the archived oplog up to a moment, or all of them."""

    older_than: OpTime | None = None
    """None: all."""


class CleanupSpec(Record):
    """`ctl cleanup`, and what the policy asks for by itself."""

    older_than: OpTime | None = None
    by_policy: bool = False
    """What the policy does not keep goes, in place of what is older."""
    sweep: bool = True
    """Remove what nothing refers to, too."""


class HoldSpec(Record):
    """`ctl hold`: a reason to keep a backup, or None to release it."""

    name: str
    hold: str | None = None


class VerifySpec(Record):
    """`ctl verify`: no names mean every backup, and the archived oplog too."""

    names: tuple[str, ...] = ()
    profile: str | None = None
    """Look there; None: at the first storage that holds each backup and answers."""
    deep: bool = False
    """Read every object, not only its size."""
    max_age_s: float = 7 * 86_400
    """With `deep`: what was read whole within this time is not read again."""


class ProveSpec(Record):
    """`ctl verify --restore`. `time` is inclusive; without it the backup's own `last_write`."""

    name: str
    time: OpTime | None = None
    profile: str | None = None
    """Take it from there; None: from any storage that has it and answers."""


class ExportSpec(Record):
    """`ctl export`. `directory` is below what the agent that writes it allows on its host."""

    name: str
    directory: str
    ns: tuple[str, ...] = ()
    time: OpTime | None = None
    profile: str | None = None


class ResyncSpec(Record):
    """`ctl config --force-resync`, `ctl profile sync`."""

    include_restores: bool = False
    profiles: tuple[str, ...] = ("main",)


class AdoptSpec(Record):
    """`ctl storage adopt`. `owner` is the cluster that the client showed: another one that has
    adopted the repository meanwhile is not overridden."""

    profile: str = "main"
    owner: str | None = None
