"""What one agent found out about a storage when it was asked to try it: `ctl storage check`."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from agent.wire.record import Record

ANSWER_WITHIN_S = 90.0
"""How long an agent may take for its answer."""
FRESH_S = 60.0
"""A request older than this is not answered any more: whoever asked has gone."""
FEATURE = "storage-check"


class StorageCheckRequest(Record):
    """What `ctl` asks all agents; `at_s` is the server's time, in seconds."""

    id: str
    profile: str
    measure_bytes: int = 0
    """Size of the object that throughput is measured with; 0 measures nothing."""
    at_s: int


class Verdict(StrEnum):
    """Whether something may be done."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Permission(Record):
    """One thing that was tried."""

    name: str
    """`put`, `list`, `get`, `range`, `conditional put`, `multipart`, `abort`, `delete`."""
    verdict: Verdict
    is_needed: bool = True
    """Whether Tidelog cannot work without it."""
    detail: str = ""


class StorageReport(Record):
    """One agent's answer. What could not be found out is None, or says so in words."""

    id: str
    """Of the request."""
    node: str
    profile: str
    type: str = ""
    address: str = ""
    error: str | None = None
    """Why the storage cannot be used from here; None where it can."""
    hint: str = ""
    permissions: tuple[Permission, ...] = ()
    identity: str | None = None
    credentials: str | None = None
    """Which link of the credential chain won."""
    tls: str | None = None
    region: str | None = None
    clock_skew_s: float | None = None
    """The host's clock minus the storage's."""
    versioning: str | None = None
    object_lock: str | None = None
    encryption: str | None = None
    """What encrypts a new object on the server's side, as the storage says it."""
    public: str | None = None
    free_bytes: int | None = None
    write_bytes_s: float | None = None
    read_bytes_s: float | None = None
    repository_id: str | None = None
    owner: str | None = None
    """The cluster that owns the repository."""
    is_foreign: bool = False
    warnings: tuple[str, ...] = Field(default=())

    @property
    def is_ok(self) -> bool:
        """Whether everything that is needed works."""
        refused = [p for p in self.permissions if p.is_needed and p.verdict is Verdict.NO]
        return self.error is None and not refused
