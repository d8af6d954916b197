"""The `storage` section: which driver, and the driver's own sub-section of the same name.

A further driver is a model in a module of its own, one more optional field of `StorageSettings` and
one more word in `StorageType`; nothing else of the settings knows it. What is secret has the type
`Secret`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from agent.wire.storage_azure import AzureSettings
from agent.wire.storage_gcs import GcsSettings
from agent.wire.storage_oss import OssSettings
from agent.wire.storage_s3 import MinioSettings, S3Settings
from agent.wire.storage_sections import RetryerSettings, Section
from agent.wire.storage_urls import expanded

__all__ = [
    "AzureSettings",
    "FilesystemSettings",
    "GcsSettings",
    "MinioSettings",
    "OssSettings",
    "RetryerSettings",
    "S3Settings",
    "Section",
    "StorageSettings",
]

StorageType = Literal["filesystem", "s3", "minio", "azure", "gcs", "oss", "memory"]


class FilesystemSettings(Section):
    """A directory that every agent sees at the same path: a shared mount, or any with one node."""

    path: str
    """Absolute. The repository lies directly in it."""
    max_obj_size_gb: float | None = Field(default=None, alias="maxObjSizeGB")
    """Of PBM's files; objects of Tidelog are far smaller, so it has no effect."""
    backup_buff_size: int | None = None
    """Of PBM's files; no effect."""
    restore_buff_size: int | None = None
    """Of PBM's files; no effect."""

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: str) -> str:
        if not path.startswith("/"):
            raise ValueError(f"{path!r} must be an absolute path")
        return path.rstrip("/") or "/"


IMPATIENT: Final = RetryerSettings(max_attempts=5, base_delay=0.2, max_backoff=2.0)


class StorageSettings(Section):
    """Where the repository is. `memory` exists for tests only and is refused elsewhere."""

    type: StorageType
    url: str | None = None
    """Type, bucket and prefix in one line; spelled out as soon as it is read."""
    filesystem: FilesystemSettings | None = None
    s3: S3Settings | None = None
    minio: MinioSettings | None = None
    azure: AzureSettings | None = None
    gcs: GcsSettings | None = None
    oss: OssSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _expand_url(cls, raw: Any) -> Any:
        return expanded(raw) if isinstance(raw, Mapping) else raw

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        if self.type != "memory" and getattr(self, self.type) is None:
            raise ValueError(f"type is {self.type}, but the section {self.type} is missing")
        return self

    def impatient(self) -> StorageSettings:
        """The same storage, given up after a few seconds: for a look, not for work."""
        section = getattr(self, self.type, None)
        if section is None or getattr(section, "retryer", None) is None:
            return self
        hasty = section.model_copy(update={"retryer": IMPATIENT})
        return self.model_copy(update={self.type: hasty})

    @property
    def retryer(self) -> RetryerSettings:
        """How requests to this storage are retried."""
        section = getattr(self, self.type, None)
        found = getattr(section, "retryer", None)
        return found if isinstance(found, RetryerSettings) else RetryerSettings()
