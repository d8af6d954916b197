"""Backups as the catalogue and `backup.json` know them."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from agent.wire.collections import SCHEMA_VERSION
from agent.wire.encryption import BackupEncryption
from agent.wire.optime import OpTime
from agent.wire.record import Record
from agent.wire.verdicts import Verdict


class ReplsetPart(Record):
    """One replica set's share: where its manifest lies and what it sums up to."""

    replset: str
    shard: str | None = None
    """The name of the shard; None for config servers, and where nothing is sharded."""
    is_config: bool = False
    """Whether these are the config servers of a sharded cluster."""
    manifest_key: str
    manifest_sha256: str
    manifest_size_bytes: int
    node: str
    first_write: OpTime
    read_end: OpTime
    """The OpTime at which its last chunk was read."""
    collections: int
    documents: int
    objects: int
    size_bytes: int
    """Stored bytes: chunks and the slices of the span."""
    size_uncompressed_bytes: int


class Copy(Record):
    """Where a backup lies."""

    profile: str
    """The profile that it was written or found through; what it is called now may differ."""
    repository_id: str


class Backup(Record):
    """A published backup. The same document is `backup.json` on storage and the catalogue's."""

    id: str = Field(alias="_id")
    """The backup's name."""
    schema_version: int = SCHEMA_VERSION
    op_id: str
    type: str = "logical"
    profile: str = "main"
    format_version: int
    repository_id: str
    cluster_id: str
    """Of the cluster that was backed up."""
    mongodb_version: str
    fcv: str
    tidelog_version: str
    first_write: OpTime
    last_write: OpTime
    started_at: datetime
    """Server time of the request."""
    ns: tuple[str, ...] = ()
    exclude_ns: tuple[str, ...] = ()
    with_users_and_roles: bool = True
    compression: str
    hold: str | None = None
    selective: bool = False
    """Of an encrypted one: that it holds only some namespaces. Which ones is sealed."""
    encryption: BackupEncryption | None = None
    replsets: tuple[ReplsetPart, ...]
    size_bytes: int
    size_uncompressed_bytes: int
    copies: tuple[Copy, ...] | None = None
    """All repositories that hold it; the catalogue knows, `backup.json` does not."""
    verdict: Verdict | None = None
    """What the last verification found; the catalogue knows, `backup.json` does not."""
    proof: Verdict | None = None
    """The last verification that restored it into a scratch mongod and found it sound; the
    catalogue knows."""

    @property
    def places(self) -> tuple[Copy, ...]:
        """Where it lies, the first copy first."""
        return self.copies or (Copy(profile=self.profile, repository_id=self.repository_id),)

    @property
    def is_sharded(self) -> bool:
        """Whether it is of a sharded cluster."""
        return any(part.is_config for part in self.replsets)

    @property
    def is_selective(self) -> bool:
        """Whether it holds only some namespaces."""
        return self.selective or bool(self.ns or self.exclude_ns)

    def to_result(self) -> dict[str, object]:
        """The JSON result of `ctl backup --wait`, as the command-line contract has it."""
        return {
            "name": self.id,
            "op_id": self.op_id,
            "status": "done",
            "profile": self.profile,
            "first_write": self.first_write.to_json(),
            "last_write": self.last_write.to_json(),
            "size": self.size_bytes,
            "size_uncompressed": self.size_uncompressed_bytes,
        }
