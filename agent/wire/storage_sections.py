"""What the sections of all storages share: spelling, retries, and endpoints by node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from agent.wire.record import Record
from agent.wire.units import Duration


def _tidy_prefix(written: Any) -> str:
    return "/".join(part for part in str(written or "").split("/") if part)


Prefix = Annotated[str, BeforeValidator(_tidy_prefix)]
"""What keys begin with, whatever slashes were written around it."""


def other_names(*names: str) -> dict[str, Any]:
    """For `Field(json_schema_extra=…)`: more spellings that a person may use for a key."""
    return {"aliases": list(names)}


class Section(Record):
    """A part of the settings: keys in the camel case that PBM's files use."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, alias_generator=to_camel
    )

    @model_validator(mode="before")
    @classmethod
    def _absent_if_empty(cls, raw: Any) -> Any:
        """`credentials:` alone is how YAML spells an empty section: as if it were not there."""
        if not isinstance(raw, Mapping):
            return raw
        return {key: value for key, value in raw.items() if value is not None}


class RetryerSettings(Section):
    """How often a request is tried and how long is waited in between, whatever the storage.

    The documented keys of all of PBM's storages mean the same here.
    """

    max_attempts: int | None = Field(default=None, ge=1, le=100)
    """All attempts, the first one included."""
    num_max_retries: int | None = Field(default=None, ge=0, le=99)
    """The same without the first one; `maxAttempts` wins where both are set."""
    base_delay: Duration | None = Field(
        default=None,
        json_schema_extra=other_names("minRetryDelay", "backoffInitial"),
    )
    """The first pause, doubled each time."""
    max_backoff: Duration | None = Field(
        default=None,
        json_schema_extra=other_names("maxRetryDelay", "backoffMax"),
    )
    """The longest pause."""
    backoff_multiplier: float | None = None
    """Of PBM's files; pauses always double, so it has no effect."""
    chunk_retry_deadline: Duration | None = None
    """How long one request is tried in all."""

    @property
    def attempts(self) -> int | None:
        """All attempts at one request; None where nothing is set."""
        if self.max_attempts is not None:
            return self.max_attempts
        return None if self.num_max_retries is None else self.num_max_retries + 1


def endpoint_for(node: str, endpoint: str | None, by_node: Mapping[str, str]) -> str | None:
    """The endpoint that the agent of `node` (`host:port`) uses: its own one, or that of all."""
    return by_node.get(node, endpoint)
