"""Who is told of what happens: webhooks, and the deadline for the next backup."""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from agent.wire.secrets import Secret
from agent.wire.storage_sections import Section
from agent.wire.units import Duration

MAX_WEBHOOKS: Final = 16
DAY_S: Final = 24 * 3600.0

Occasion = Literal["success", "failure", "absence", "gap"]


class WebhookSettings(Section):
    """One receiver. Its name is yours to choose."""

    url: str
    """`https://…`; `http://` is for receivers on the same host. What it holds is shown to whoever
    may read the settings."""
    secret: Secret | None = None
    """Signs what is sent (HMAC-SHA-256, as standardwebhooks.com has it); best by reference, which
    every agent of the lead replica set must be able to read."""
    events: tuple[Occasion, ...] = ("failure", "absence", "gap")
    """What it is told of: `success` and `failure` of operations, `absence` of a backup for longer
    than `notify.maxAge`, a `gap` in what can be restored to."""
    format: Literal["json", "slack"] = "json"
    """`slack`: `{"text": …}` alone, as Slack and what imitates it take it."""

    @field_validator("url")
    @classmethod
    def _checked(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("must be https://host/path")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no password: it is shown; sign with a secret instead")
        return url

    @field_validator("events", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


class NotifySettings(Section):
    """Telling people. Metrics and the page use the deadline, too."""

    max_age: Duration = Field(default=26 * 3600.0, gt=0)
    """How old the newest full backup may get. A day and two hours: daily backups take a while."""
    webhooks: dict[str, WebhookSettings] = Field(default_factory=dict, max_length=MAX_WEBHOOKS)
    """By name, e.g. `notify.webhooks.oncall.url`."""
