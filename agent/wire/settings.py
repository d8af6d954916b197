"""Cluster-wide settings, in the shape of PBM's configuration file, and the functions on them.

They live in the control database with a version that rises on each change; an operation pins the
version it began with. Reading a stored document ignores keys a newer version added; what a person
writes is checked key by key (`agent.wire.keys`). Keys that mean something in PBM only are accepted
and have no effect, so that a file made for it loads as it is; each says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from agent.errors import ConfigError
from agent.wire import keys
from agent.wire.compression import Compression, CompressionLevel, stored_compression
from agent.wire.notify_settings import NotifySettings
from agent.wire.policy import PolicySettings
from agent.wire.quorum import parse_quorum
from agent.wire.storage_settings import FilesystemSettings, Section, StorageSettings
from agent.wire.units import Duration

__all__ = [
    "BackupSettings",
    "FilesystemSettings",
    "PitrSettings",
    "PolicySettings",
    "RestoreSettings",
    "Section",
    "Settings",
    "StorageSettings",
    "dump_yaml",
    "from_mapping",
    "get_key",
    "load_yaml",
    "masked",
    "set_key",
    "unset_key",
]

DEFAULT_SLICE_SPAN_S: Final = 10.0
SHORTEST_SLICE_SPAN_S: Final = 1.0
"""Each slice is an object, an entry of a list and several requests to the storage."""
DEFAULT_COMPRESSION_LEVEL: Final = 1

Priority = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A node of priority 0 is never chosen."""


class PitrSettings(Section):
    """Continuous archiving of the oplog."""

    enabled: bool = False
    oplog_span_min: float | None = None
    """Minutes, as in PBM. Without it a slice closes after 10 s: it bounds what a disaster loses."""
    oplog_span_sec: float | None = None
    """The same in seconds, at least 1; wins where both are set."""
    auto_base: bool = False
    """Take a backup by itself where a new timeline begins."""
    oplog_only: bool = False
    """Of PBM's files; no effect: the oplog is archived with and without a base backup."""
    priority: dict[str, Priority] = Field(default_factory=dict)
    """`host:port` → priority for slicing, in place of `backup.priority`. Nodes not named get 1 as
    soon as one is named. With 0 a node never slices; with 0 for all nodes of a replica set nobody
    does, and its oplog is not archived."""
    compression: Compression | None = None
    compression_level: CompressionLevel | None = None

    @field_validator("oplog_span_min", "oplog_span_sec")
    @classmethod
    def _check_span(cls, span: float | None, info: ValidationInfo) -> float | None:
        unit_s = 60 if info.field_name == "oplog_span_min" else 1
        if span is not None and not SHORTEST_SLICE_SPAN_S <= span * unit_s < math.inf:
            raise ValueError(f"a slice spans {SHORTEST_SLICE_SPAN_S:g} s or more")
        return span

    @property
    def oplog_span_s(self) -> float:
        """Seconds after which a slice closes."""
        if self.oplog_span_sec is not None:
            return self.oplog_span_sec
        return DEFAULT_SLICE_SPAN_S if self.oplog_span_min is None else self.oplog_span_min * 60


class BackupTimeouts(Section):
    """How long the steps of a backup may take."""

    starting_status: Duration = 33.0
    """Of PBM's files; no effect: an operation fails when no agent took it for two minutes."""
    balancer_stop: Duration = 30.0
    """How long it waits for range migrations under way after it paused the balancer of a sharded
    cluster; then it goes on, which is as safe."""


class BackupSettings(Section):
    """Defaults of `ctl backup`."""

    priority: dict[str, Priority] = Field(default_factory=dict)
    """`host:port` → priority. Nodes not named get 1 as soon as one is named, as in PBM. With 0 a
    node takes no backup; with 0 for all nodes of a replica set there is none, and where
    `pitr.priority` is empty its oplog is not archived either."""
    compression: Compression = "zstd"
    compression_level: CompressionLevel = DEFAULT_COMPRESSION_LEVEL
    """Of zstd; 1 is the fastest of the positive ones and keeps most of the gain."""
    num_parallel_collections: int | None = Field(default=None, ge=1)
    """Ranges read at once; without it 3."""
    num_parallel_files: int | None = None
    """Of PBM's physical backups; no effect."""
    oplog_span_min: float | None = Field(default=None, gt=0)
    """Of PBM's files; no effect: slices of a backup are cut by size, and closed at its end."""
    timeouts: BackupTimeouts = BackupTimeouts()

    @property
    def stored_compression(self) -> Literal["zstd", "none"]:
        """What is really written."""
        return stored_compression(self.compression)


class RestoreSettings(Section):
    """Defaults of `ctl restore`."""

    batch_size: int = Field(default=500, ge=1)
    """Of PBM's files; batches here are cut by bytes, so it has no effect."""
    num_insertion_workers: int | None = Field(default=None, ge=1)
    """As `numParallelCollections`; the greater of the two holds."""
    num_parallel_collections: int | None = Field(default=None, ge=1)
    """Chunks loaded at once; without it 3."""
    num_download_workers: int | None = Field(default=None, ge=1)
    """Of PBM's physical restores; no effect."""
    index_commit_quorum: Literal["majority", "votingMembers"] | int | None = None
    """`majority` (so without it), `votingMembers` or a number of members: who has to have built an
    index before it is ready. With `votingMembers` a restore waits for every voting member."""
    num_parallel_files: int | None = None
    """Of PBM's physical restores; no effect, as all below."""
    max_download_buffer_mb: int | None = None
    download_chunk_mb: int | None = None
    mongod_location: str | None = None
    mongod_location_map: dict[str, str] = Field(default_factory=dict)
    fallback_enabled: bool | None = None
    allow_partly_done: bool | None = None
    timeouts: BackupTimeouts | None = None

    @field_validator("index_commit_quorum", mode="before")
    @classmethod
    def _parse_quorum(cls, value: object) -> str | int | None:
        return None if value is None else parse_quorum(value)


class Settings(Section):
    """All of them. Empty settings are valid: without `storage` no operation can begin."""

    storage: StorageSettings | None = None
    pitr: PitrSettings = PitrSettings()
    backup: BackupSettings = BackupSettings()
    restore: RestoreSettings = RestoreSettings()
    profiles: dict[str, StorageSettings] = Field(default_factory=dict)
    """Storages beside `storage`, which is the profile `main`; changed with `ctl profile`."""
    notify: NotifySettings = NotifySettings()
    policy: PolicySettings = PolicySettings()

    @field_validator("pitr", "backup", "restore", "notify", "policy", mode="before")
    @classmethod
    def _empty_section(cls, value: Any) -> Any:
        return {} if value is None else value  # `backup:` alone is how YAML spells an empty one

    def to_document(self) -> dict[str, Any]:
        """As stored and as a person would write it: only what was set."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def from_mapping(raw: Mapping[Any, Any]) -> Settings:
    """Settings a person wrote. Raises `ConfigError` for unknown keys and wrong values."""
    return keys.validate(Settings, keys.canonical(Settings, raw))


def load_yaml(text: str, source: str = "the configuration") -> Settings:
    """Settings from a YAML text. Raises `ConfigError` naming the line or the key."""
    return from_mapping(keys.parse_yaml(text, source))


def get_key(settings: Settings, path: str) -> Any:
    """What one dotted key is set to or is by default, as it may be shown (secrets masked).
    Raises `ConfigError` for an unknown key, `NotFound` where there is neither."""
    return keys.get_path(masked(settings, defaults=True), keys.resolve(Settings, path))


def set_key(settings: Settings, path: str, text: str) -> Settings:
    """A copy with one dotted key set to what the text says. Raises `ConfigError`."""
    steps = keys.resolve(Settings, path)
    if not steps:
        raise ConfigError("the key is empty", hint="write section.key=value")
    raw = keys.set_path(settings.to_document(), steps, keys.parse_value(text))
    return from_mapping(raw)


def unset_key(settings: Settings, path: str) -> Settings:
    """A copy with one dotted key back at its default. Raises `ConfigError`, `NotFound`."""
    return from_mapping(keys.unset_path(settings.to_document(), keys.resolve(Settings, path)))


def masked(settings: Settings, *, defaults: bool = False) -> dict[str, Any]:
    """What a person may see: units on durations and sizes, `***` for secrets; only what was set
    unless `defaults` are wanted too."""
    return keys.masked(settings, only_set=not defaults)


def dump_yaml(settings: Settings, *, defaults: bool = False) -> str:
    """The masked settings as YAML."""
    shown = masked(settings, defaults=defaults)
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True) if shown else ""
