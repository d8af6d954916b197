"""What is said of encryption: key-encryption keys, wrapped data keys, the policy of a repository.

A *key-encryption key* (KEK) is a person's: a passphrase, a key file, a key of a key management
service. A *data key* is made by Tidelog, one a backup and one a day of point-in-time recovery; it
is stored only *wrapped*, that is encrypted under one or more KEKs. The *policy* says that a
repository is encrypted and under which KEKs new data keys are wrapped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import Field

from agent.wire.record import Record

ALGORITHM: Final = "AES-256-GCM"
KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class ProviderModule:
    """Where a key provider is, and which extra of the package brings what it needs."""

    module: str
    extra: str | None = None


PROVIDERS: Final[dict[str, ProviderModule]] = {
    "passphrase": ProviderModule("agent.keys.passphrase"),
    "keyfile": ProviderModule("agent.keys.keyfile"),
    "aws-kms": ProviderModule("agent.keys.aws_kms", "s3"),
    "aliyun-kms": ProviderModule("agent.keys.aliyun_kms"),
}
"""Who may hold a KEK. A further one is a module and a line here."""


class KeyState(StrEnum):
    """Whether a KEK can be used, as its keeper says."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    PENDING_DELETION = "pending deletion"
    PENDING_IMPORT = "key material missing"
    DELETED = "deleted"
    UNKNOWN = "unknown"

    @property
    def is_usable(self) -> bool:
        """Whether it unwraps now. An unknown state is found out by trying."""
        return self in (KeyState.ENABLED, KeyState.UNKNOWN)


class KeyDescription(Record):
    """What the keeper of a KEK says of it."""

    state: KeyState = KeyState.UNKNOWN
    key: str
    """How it is named: an ARN, a key id, a path. Never the key."""
    alias: str | None = None
    deletion_at: datetime | None = None
    warnings: tuple[str, ...] = ()


class Kek(Record):
    """One key-encryption key, as the policy names it. No part of it is secret: options hold
    references (`{file: …}`), which each agent resolves on its own host."""

    id: str
    """12 hexadecimal characters, of provider, key and fingerprint."""
    provider: str
    key: str
    alias: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    fingerprint: str
    """16 hexadecimal characters. Of a passphrase or key file it is of the key itself, so hosts
    that hold different ones are told apart; of a service, of the key's name."""
    is_service: bool = False
    """Kept by a key management service: it never leaves it, and its use can be audited."""

    @property
    def label(self) -> str:
        """For people."""
        named = f"{self.key} ({self.alias})" if self.alias else self.key
        return f"{self.provider} key {named}"


def kek_id(provider: str, key: str, fingerprint: str) -> str:
    """The id of a KEK: the same wherever the same key is given."""
    text = json.dumps([provider, key, fingerprint])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Wrap(Record):
    """A data key encrypted under one KEK."""

    kek: Kek
    ciphertext: str
    """Base64, as the provider gave it."""


class DataKeyRecord(Record):
    """`keys/<key id>.json`: a data key, wrapped. `keys/<key id>.<KEK id>.json`, added by a
    rotation, has the same shape and other wraps."""

    format_version: int = 2
    key_id: str
    repository_id: str
    algorithm: str = ALGORITHM
    created_at: datetime
    wraps: tuple[Wrap, ...]

    @property
    def context(self) -> dict[str, str]:
        """What every wrap is bound to: the encryption context of a key management service."""
        return wrap_context(self.repository_id, self.key_id)


def wrap_context(repository_id: str, key_id: str) -> dict[str, str]:
    """See `DataKeyRecord.context`."""
    return {"tidelog-repository": repository_id, "tidelog-key": key_id}


class CensusRef(Record):
    """Where the list lies of what was in clear when the first policy was written."""

    key: str
    sha256: str


class Policy(Record):
    """`encryption/<number>.json`: from now on this repository is encrypted. Policies are numbered
    without a hole, each names the digest of the one before it; the last one holds. Each carries a
    MAC under the repository's authority, so nobody without a key can write the next one."""

    format_version: int = 2
    number: int
    repository_id: str
    required: Literal[True] = True
    """There is no way back: a policy that does not require encryption cannot be written down."""
    key_change: Literal["rotate", "forbid"] = "rotate"
    keks: tuple[Kek, ...] = Field(min_length=1)
    """New data keys are wrapped under each of them; the first one makes them."""
    retired: tuple[Kek, ...] = ()
    """Former ones: they still unwrap what was wrapped under them."""
    created_at: datetime
    since: datetime
    """When the first policy was written."""
    previous_sha256: str | None = None
    op_id: str = ""
    """The operation that wrote it."""
    authority: DataKeyRecord
    """The key that policies are proven with, made with the first of them and never changed; every
    later policy has it wrapped under its own KEKs, too."""
    census: CensusRef | None = None
    """None where nothing was in clear."""
    mac: str = ""
    """HMAC-SHA256, hexadecimal, under the authority; `agent.archive.authority`."""

    @property
    def all_keks(self) -> tuple[Kek, ...]:
        """Those in use and former ones."""
        return (*self.keks, *self.retired)

    def text(self) -> bytes:
        """As stored."""
        return self.model_dump_json(exclude_none=True, indent=1).encode()

    @property
    def sha256(self) -> str:
        """Digest of the stored bytes."""
        return hashlib.sha256(self.text()).hexdigest()


def follows(old: Policy | None, new: Policy) -> str | None:
    """Why a policy may not come after another; None where it may."""
    if old is None:
        return None if new.number == 1 and new.previous_sha256 is None else "it is not the first"
    if new.number != old.number + 1 or new.previous_sha256 != old.sha256:
        return "it does not continue the policy before it"
    if new.repository_id != old.repository_id or new.since != old.since:
        return "it is of another repository"
    if new.authority.key_id != old.authority.key_id or new.census != old.census:
        return "it changes what policies are proven with"
    if old.key_change == "forbid":
        return "the policy before it forbids a change of the key"
    if any(k.is_service for k in old.keks) and not any(k.is_service for k in new.keks):
        return "it gives up the key management service for less"
    known = {kek.id for kek in new.all_keks}
    lost = [kek.id for kek in old.all_keks if kek.id not in known]
    return f"it forgets the key {lost[0]}" if lost else None


class KeyHealth(Record):
    """What a probe found of one data key."""

    key_id: str
    backups: tuple[str, ...] = ()
    """Names of those that need it; empty: slices of point-in-time recovery."""
    keks: tuple[str, ...] = ()
    """KEKs that it is wrapped under."""
    error: str | None = None
    """Why it could not be unwrapped."""
    warnings: tuple[str, ...] = ()


class Witness(Record):
    """What the control database remembers of a repository's encryption. The repository itself
    says what holds; this copy is for `ctl`, and proof against a storage that forgot."""

    id: str = Field(alias="_id")
    """`encryption/<repository id>`."""
    profile: str = "main"
    address: str = ""
    policy: Policy
    probed_at: datetime | None = None
    keys: tuple[KeyHealth, ...] = ()
    problem: str | None = None
    """Found by the last probe, in one sentence."""


class BackupEncryption(Record):
    """How a backup is encrypted, in its `backup.json`: all that a person without Tidelog needs to
    have its key unwrapped."""

    algorithm: str = ALGORITHM
    key_ids: tuple[str, ...] = Field(min_length=1)
    encrypted_at: datetime
    keys: tuple[DataKeyRecord, ...] = ()
    """As they were when the backup was published; a rotation adds wraps beside them."""
    sealed: str = ""
    """Base64: `{"ns": …, "exclude_ns": …}`, encrypted, with the rest of the document as
    associated data."""


def canonical(document: Mapping[str, Any]) -> bytes:
    """JSON that is the same for the same content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


class EncryptionSpec(Record):
    """`ctl encryption …`, as the specification of an operation."""

    action: Literal["enable", "rotate", "probe"]
    provider: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    key_change: Literal["rotate", "forbid"] = "rotate"
    keep: bool = False
    """Rotate: go on wrapping under the present keys, too."""
    profile: str = "main"
