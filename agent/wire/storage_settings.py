"""The `storage` section: which driver, and the driver's own sub-section of the same name.

A further driver is one more model here, one more optional field of `StorageSettings` and one more
word in `StorageType`; nothing else of the settings knows it. Secrets are marked
`json_schema_extra={"secret": True}`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from agent.wire.record import Record

StorageType = Literal["filesystem", "memory"]


class Section(Record):
    """A part of the settings: keys in the camel case that PBM's files use."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, alias_generator=to_camel
    )


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


class StorageSettings(Section):
    """Where the repository is. `memory` exists for tests only and is refused elsewhere."""

    type: StorageType
    filesystem: FilesystemSettings | None = None

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        if self.type != "memory" and getattr(self, self.type) is None:
            raise ValueError(f"type is {self.type}, but the section {self.type} is missing")
        return self
