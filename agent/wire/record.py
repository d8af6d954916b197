"""The base of every document: frozen, and forgiving of fields that a newer version added."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen document. Unknown fields are ignored, so that versions can be mixed."""

    # Deferred: a process uses few of the kinds that it imports, and `ctl` has to start quickly.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, defer_build=True)

    def to_document(self) -> dict[str, Any]:
        """The document as stored, under its stored names (`_id`), without absent optionals."""
        return self.model_dump(mode="python", by_alias=True, exclude_none=True)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, for storage objects and `ctl -o json`."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Read a stored document. Raises `pydantic.ValidationError`."""
        return cls.model_validate(document)
